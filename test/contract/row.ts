import type { World } from "./world.ts";

/**
 * One statement of the specification. `from` says where it stands: "R 127" is line 127 of the reference,
 * "E 40" of the list of endpoints, "D ids" the row "ids" of the decisions that settle what the two leave open.
 * Several places may say the same: "R 127, E 45".
 */
export type Row = [from: string, says: string, check: (world: World) => Promise<unknown>];

export type Table = readonly Row[];
