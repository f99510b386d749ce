import { createRoute, z } from "@hono/zod-openapi";
import { invalidField } from "../errors.ts";
import { auditActor } from "../http/audit-actor.ts";
import { bearerToken } from "../http/bearer.ts";
import { bearer, errors, json, jsonBody, Message, newRouter } from "../http/router.ts";
import { busy, Email, NewPassword } from "./account.ts";
import type { Guard } from "./guard.ts";
import { type PasswordResetDeps, requestPasswordReset, resetPasswordByLink } from "./password-reset.ts";
import { resendVerification, type VerificationDeps, verifyByCode, verifyByLink } from "./verification.ts";

export type RecoveryRoutesDeps = VerificationDeps & PasswordResetDeps & { guard: Guard };

const tags = ["Authentication"];

const Verification = z
  .object({
    token: z.string().max(4096).nullish().openapi({ description: "Of the message's link" }),
    code: z.string().max(64).nullish().openapi({
      description: "Of the message; counts only with its owner's access token",
      example: "123456",
    }),
  })
  .openapi("Verification");

const verifyRoute = createRoute({
  method: "post",
  path: "/api/v1/auth/verify-email",
  operationId: "verifyEmail",
  tags,
  summary: "Verify an email address; with an access token and no body, send the message again",
  security: [{}, ...bearer],
  request: { body: { required: false, content: { "application/json": { schema: Verification } } } },
  responses: {
    200: json(Message, "Verified, or sent"),
    ...errors({
      400: "Invalid, used or expired; or already verified (`already_verified`)",
      401: "A code without an access token, or an access token that is not valid",
      422: "Invalid data; or neither a token nor an access token",
      429: "Too many requests",
    }),
  },
});

const resendRoute = createRoute({
  method: "post",
  path: "/api/v1/auth/resend-verification",
  operationId: "resendVerification",
  tags,
  summary: "Send the verification message again",
  security: bearer,
  responses: {
    200: json(Message, "Sent"),
    ...errors({
      400: "Already verified (`already_verified`)",
      401: "Not authenticated",
      429: "Too many requests",
    }),
  },
});

const forgotRoute = createRoute({
  method: "post",
  path: "/api/v1/auth/forgot-password",
  operationId: "forgotPassword",
  tags,
  summary: "Send a link for a new password; the answer is the same for an unknown address",
  request: jsonBody(z.object({ email: Email }).openapi("ForgottenPassword")),
  responses: {
    200: json(Message, "Sent if there is an account"),
    ...errors({ 422: "Invalid data", 429: "Too many requests" }),
  },
});

const resetRoute = createRoute({
  method: "post",
  path: "/api/v1/auth/reset-password",
  operationId: "resetPassword",
  tags,
  summary: "Set a new password with the token of a link; all sessions end",
  request: jsonBody(
    z
      .object({
        token: z.string().max(4096),
        new_password: NewPassword,
      })
      .openapi("PasswordReset"),
  ),
  responses: {
    200: json(Message, "Set"),
    ...errors({
      400: "Invalid, used or expired token",
      422: "Invalid data, or a weak password",
      429: "Too many requests",
    }),
    ...busy,
  },
});

/** Verification of addresses and forgotten passwords. */
export function createRecoveryRoutes(deps: RecoveryRoutesDeps) {
  const { guard } = deps;
  const router = newRouter();

  router.openapi(verifyRoute, async (c) => {
    const { token, code } = c.req.valid("json");
    if (token) {
      verifyByLink(deps, token, c.get("origin"));
      return c.json({ message: "Email verified successfully" }, 200);
    }
    if (!code && bearerToken(c.req.header("authorization")) === undefined)
      throw invalidField("token", "This field is required", "required");
    // Only now: a link's token is proof enough, whatever has become of an access token that comes along.
    const { userId } = await guard.actorOf(c);
    if (code) {
      verifyByCode(deps, { userId, code: code.trim() }, auditActor(c));
      return c.json({ message: "Email verified successfully" }, 200);
    }
    resendVerification(deps, userId, auditActor(c));
    return c.json({ message: "Verification email sent" }, 200);
  });

  router.openapi({ ...resendRoute, middleware: guard.requireActor }, (c) => {
    resendVerification(deps, c.get("actor").userId, auditActor(c));
    return c.json({ message: "Verification email sent" }, 200);
  });

  router.openapi(forgotRoute, (c) => {
    requestPasswordReset(deps, c.req.valid("json").email, c.get("origin"));
    return c.json({ message: "If there is an account with this email, a message has been sent" }, 200);
  });

  router.openapi(resetRoute, async (c) => {
    const { token, new_password } = c.req.valid("json");
    await resetPasswordByLink(deps, { token, newPassword: new_password }, c.get("origin"));
    return c.json({ message: "Password reset successfully" }, 200);
  });

  return router;
}
