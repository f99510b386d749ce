import type { StatusChange } from "../environments/feed.ts";
import type { Environment } from "../environments/rows.ts";

/** What the sockets of an environment need to know of it. */
export type EnvironmentView = Pick<
  Environment,
  | "id"
  | "name"
  | "templateName"
  | "status"
  | "statusMessage"
  | "statusSince"
  | "progress"
  | "installationCompleted"
>;

/** How they come to know it; `app.ts` connects it to the environments' rows and their feed. */
export interface EnvironmentAccess {
  /** The environment when it is the user's. */
  owned(id: string, userId: string): EnvironmentView | undefined;
  /** Calls `listener` with each change of its status; returns how to stop that. */
  watch(id: string, listener: (change: StatusChange) => void): () => void;
}

export type Status = Pick<StatusChange, "status" | "message" | "progress" | "installationCompleted" | "atMs">;

/** The status that a client is told first. */
export function currentStatus(environment: EnvironmentView): Status {
  return {
    status: environment.status,
    message: environment.statusMessage,
    progress: environment.progress,
    installationCompleted: environment.installationCompleted,
    atMs: environment.statusSince,
  };
}

/** R1's `status_update`, the same on both sockets. */
export function statusUpdate(environmentId: string, { status, message, progress, atMs }: Status) {
  return {
    type: "status_update",
    environment_id: environmentId,
    status,
    message: message ?? `The environment is ${status}`,
    progress,
    timestamp: new Date(atMs).toISOString(),
  };
}
