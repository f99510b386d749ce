import { basename, relative } from "node:path";

/** Where a compiled binary finds the files that are in it. */
const EMBEDDED = "/$bunfs/";

/** What this program is called with, up to the command: said wherever someone is told what to type. */
export function program(): string {
  if (!import.meta.path.startsWith(EMBEDDED)) return `npx -y bun@${Bun.version} start`;
  const name = basename(process.execPath);
  if (Bun.which(name) === process.execPath) return name;
  const way = relative(process.cwd(), process.execPath);
  return way.startsWith("..") ? process.execPath : `./${way}`;
}
