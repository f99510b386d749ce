import { createRoute, z } from "@hono/zod-openapi";
import { AppError } from "../errors.ts";
import { ErrorBody, HTTP_STATUS } from "../http/errors.ts";
import { errors, newRouter } from "../http/router.ts";
import { htmlPage, messageContent, resetContent, verifyContent } from "./pages.ts";
import { type PasswordResetDeps, resetPasswordByLink } from "./password-reset.ts";
import { type VerificationDeps, verifyByLink } from "./verification.ts";

/** Whatever a form or link holds is answered with a page, so nothing is refused here. */
const field = z.string().max(4096).catch("").openapi({ type: "string" });
const LinkQuery = z.object({ token: field });
const VerifyForm = z.object({ token: field });
const ResetForm = z.object({ token: field, new_password: field });

const html = (description: string) => ({ description, content: { "text/html": { schema: z.string() } } });
const form = <T extends z.ZodType>(schema: T) => ({
  // Else a request without any body would go past the validator.
  body: { required: true, content: { "application/x-www-form-urlencoded": { schema } } },
});
const tags = ["Pages"];

const verifyPage = createRoute({
  method: "get",
  path: "/verify-email",
  operationId: "verifyEmailPage",
  tags,
  summary: "Where the link of a verification message leads: a page with a button",
  request: { query: LinkQuery },
  responses: { 200: html("The page") },
});

const verifyForm = createRoute({
  method: "post",
  path: "/verify-email",
  operationId: "verifyEmailForm",
  tags,
  summary: "That button",
  request: form(VerifyForm),
  responses: {
    200: html("Verified"),
    400: html("The link can't be used"),
    ...errors({ 429: "Too many requests" }),
  },
});

const resetPage = createRoute({
  method: "get",
  path: "/reset-password",
  operationId: "resetPasswordPage",
  tags,
  summary: "Where the link of a reset message leads: a form",
  request: { query: LinkQuery },
  responses: { 200: html("The page") },
});

const resetForm = createRoute({
  method: "post",
  path: "/reset-password",
  operationId: "resetPasswordForm",
  tags,
  summary: "That form",
  request: form(ResetForm),
  responses: {
    200: html("The password is set"),
    400: html("The link can't be used"),
    422: {
      description: "A password that can't be used; the form again",
      content: { "text/html": { schema: z.string() }, "application/json": { schema: ErrorBody } },
    },
    503: html("Too many passwords are being checked"),
    ...errors({ 429: "Too many requests" }),
  },
});

/** The pages behind the links of messages, for people without any DevPocket client at hand. */
export function createPageRoutes(deps: VerificationDeps & PasswordResetDeps) {
  const router = newRouter();

  router.openapi(verifyPage, (c) => {
    const content = verifyContent(c.req.valid("query").token);
    return htmlPage(c, { title: "Verify your email address", content });
  });

  router.openapi(verifyForm, (c) => {
    try {
      verifyByLink(deps, c.req.valid("form").token, c.get("origin"));
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      const content = messageContent(
        "The link was used already, or it has expired. Sign in and ask for another.",
      );
      return htmlPage(c, { title: "This link can't be used", content }, HTTP_STATUS[error.code]);
    }
    const content = messageContent("You can close this page.");
    return htmlPage(c, { title: "Email verified successfully", content });
  });

  router.openapi(resetPage, (c) => {
    const content = resetContent(c.req.valid("query").token);
    return htmlPage(c, { title: "Choose a new password", content });
  });

  router.openapi(resetForm, async (c) => {
    const { token, new_password } = c.req.valid("form");
    try {
      await resetPasswordByLink(deps, { token, newPassword: new_password }, c.get("origin"));
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      const fault = error.fields[0]?.message ?? error.message;
      const content = error.code === "invalid" ? messageContent(fault) : resetContent(token, fault);
      return htmlPage(c, { title: "The password is not set", content }, HTTP_STATUS[error.code]);
    }
    const content = messageContent("All devices are signed out. You can sign in with the new password.");
    return htmlPage(c, { title: "The password is set", content });
  });

  return router;
}
