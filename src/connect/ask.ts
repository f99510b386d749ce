import { createInterface } from "node:readline/promises";
import { Writable } from "node:stream";
import { ConnectError } from "./api.ts";

/** Asks on standard error for what is answered on standard input, be it a terminal or what is piped in. */
export class Asker {
  #rest: Uint8Array<ArrayBuffer> = new Uint8Array();

  /** What came after the answers, of what is piped in. */
  get rest(): Uint8Array {
    return this.#rest;
  }

  /**
   * A hidden answer is not echoed.
   *
   * @throws ConnectError when there is no answer: the input has ended, or Ctrl-C
   */
  async ask(question: string, { hidden = false } = {}): Promise<string> {
    const answer = process.stdin.isTTY
      ? await askAtTerminal(question, hidden)
      : await this.#askPipe(question);
    if (answer === undefined) throw new ConnectError(`no answer to "${question.trim()}"`);
    return answer;
  }

  /** Takes a line and no more: the next may be for the shell. */
  async #askPipe(question: string): Promise<string | undefined> {
    process.stderr.write(question);
    return this.#takeLine() ?? (await this.#readLine());
  }

  #readLine(): Promise<string | undefined> {
    const { stdin } = process;
    return new Promise((resolve) => {
      const done = (line: string | undefined) => {
        stdin.off("data", onData).off("end", onEnd).pause();
        resolve(line);
      };
      const onEnd = () => done(this.#takeLine(this.#rest.length));
      const onData = (bytes: Uint8Array) => {
        this.#rest = Buffer.concat([this.#rest, bytes]);
        const line = this.#takeLine();
        if (line !== undefined) done(line);
      };
      stdin.on("data", onData).once("end", onEnd).resume();
    });
  }

  /** Undefined where there is none yet, or nothing at all. */
  #takeLine(end = this.#rest.indexOf(0x0a)): string | undefined {
    if (end < 0 || this.#rest.length === 0) return undefined;
    const line = new TextDecoder().decode(this.#rest.subarray(0, end));
    this.#rest = this.#rest.subarray(end + 1);
    return line.replace(/\r$/, "");
  }
}

async function askAtTerminal(question: string, hidden: boolean): Promise<string | undefined> {
  const muted = new Writable({ write: (_chunk, _encoding, done) => done() });
  const prompt = createInterface({
    input: process.stdin,
    output: hidden ? muted : process.stderr,
    terminal: true,
  });
  const unanswered = new Promise<undefined>((resolve) => {
    const none = () => resolve(undefined);
    prompt.once("close", none).once("SIGINT", none);
  });
  // A prompt that is shown erases what stood on its line, so it asks itself; one that is muted can't, and is
  // asked for only now that the terminal echoes nothing any more.
  if (hidden) process.stderr.write(question);
  try {
    return await Promise.race([prompt.question(hidden ? "" : question), unanswered]);
  } finally {
    prompt.close();
    if (hidden) process.stderr.write("\n");
  }
}
