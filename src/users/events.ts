import type { Tx } from "../db/open.ts";

/** What other rooms do when something becomes of a user, inside the transaction in which it does. */
export type UserEvent = (tx: Tx, userId: string) => void;
