import { type AppError, invalidField } from "../errors.ts";
// The 5,000 most common passwords of eight or more characters, in lower case and by frequency, out of the
// list of @zxcvbn-ts/language-common 4.1.3 (MIT).
import { lazily } from "../lib/lazily.ts";
import commonPasswords from "./common-passwords.txt" with { type: "text" };

const MIN_PASSWORD_CHARACTERS = 8;
const MAX_PASSWORD_CHARACTERS = 128;

const common = lazily((): ReadonlySet<string> => new Set(commonPasswords.split("\n").filter(Boolean)));

/**
 * Why `password` can't be used by the owner of these names, or undefined when it can: length, the most
 * common ones, the owner's own names; no rules of composition (OWASP ASVS 5.0 §6.2).
 *
 * @param field name of the request's field that is blamed
 */
export function passwordFault(
  password: string,
  { username, email }: { username: string; email: string },
  field = "password",
): AppError | undefined {
  const characters = [...password.normalize("NFKC")].length;
  if (characters < MIN_PASSWORD_CHARACTERS) {
    return invalidField(
      field,
      `Password must be at least ${MIN_PASSWORD_CHARACTERS} characters`,
      "min_length",
    );
  }
  if (characters > MAX_PASSWORD_CHARACTERS) {
    return invalidField(
      field,
      `Password must be at most ${MAX_PASSWORD_CHARACTERS} characters`,
      "max_length",
    );
  }
  const key = comparable(password);
  if (common().has(key)) {
    return invalidField(field, "Password is one of the most common ones", "common_password");
  }
  const [mailbox] = email.split("@");
  if ([username, email, mailbox ?? email].some((name) => comparable(name) === key)) {
    return invalidField(field, "Password must not be the username or email", "personal_password");
  }
  return undefined;
}

function comparable(text: string): string {
  return text.normalize("NFKC").toLowerCase();
}
