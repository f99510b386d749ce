import type { EnvironmentStatus } from "../db/schema.ts";
import type { StatusChange } from "../environments/feed.ts";
import type { Actor } from "../http/context.ts";

/** What the sockets need to know of an environment. */
export interface SocketEnvironment {
  id: string;
  name: string;
  /** The template's name. */
  template: string;
  status: EnvironmentStatus;
  message: string | null;
  /** 0–100. */
  progress: number;
  installationCompleted: boolean;
}

/** A change of an environment's life, told after it has been written. */
export type SocketStatusChange = Pick<
  StatusChange,
  "status" | "message" | "progress" | "installationCompleted" | "atMs"
>;

/** Where the sockets ask about environments. */
export interface EnvironmentAccess {
  /** Undefined for one that does not exist or is someone else's. */
  find(actor: Actor, environmentId: string): SocketEnvironment | undefined;
  /** Returns how to stop it. */
  watch(environmentId: string, changed: (change: SocketStatusChange) => void): () => void;
}
