import type { Runtime } from "../../src/runtime/runtime.ts";

export function unused(): never {
  throw new Error("not expected to be called");
}

/** A runtime of which a test uses only what it gives. */
export function unusedRuntime(used: Partial<Runtime>): Runtime {
  return {
    observe: unused,
    ensure: unused,
    stop: unused,
    remove: unused,
    changes: unused,
    openTerminal: unused,
    logs: unused,
    usage: unused,
    capacity: unused,
    list: unused,
    close: unused,
    ...used,
  };
}
