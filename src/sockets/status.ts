import type { StatusChange } from "../environments/feed.ts";

/** R1's `status_update`, the same on every socket of an environment. */
export function statusUpdate(
  environmentId: string,
  { status, message, progress, atMs }: Pick<StatusChange, "status" | "message" | "progress" | "atMs">,
) {
  return {
    type: "status_update",
    environment_id: environmentId,
    status,
    message: message ?? `Environment is ${status}`,
    progress,
    timestamp: new Date(atMs).toISOString(),
  };
}
