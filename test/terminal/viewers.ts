import type { TerminalSize } from "../../src/runtime/runtime.ts";
import type { Attachment, Viewer } from "../../src/terminal/attachment.ts";

/** A viewer that keeps what it is given, as fast as the test lets it. */
export class RecordingViewer implements Viewer {
  readonly parts: Buffer[] = [];
  readonly gaps: { bytes: number; offset: number; restore: string }[] = [];
  readonly sizes: TerminalSize[] = [];
  exitCode: number | null | undefined;
  wasDisplaced = false;
  timesInputFlowed = 0;
  /** Next offset it expects; checked with every output. */
  expects: number | null = null;
  unsentBytes = 0;
  attachment: Attachment | null = null;
  /** Nothing it is given leaves its buffer, as with a client that does not read. */
  isStuck = false;
  receivedBytes = 0;
  /** Called with each output, e.g. to acknowledge. */
  onOutput: (next: number) => void = () => {};
  keepsBytes = true;

  output(bytes: Uint8Array, offset: number): void {
    if (this.expects !== null && offset !== this.expects) {
      throw new Error(`got offset ${offset}, expected ${this.expects}`);
    }
    this.expects = offset + bytes.length;
    this.receivedBytes += bytes.length;
    if (this.keepsBytes) this.parts.push(Buffer.from(bytes));
    if (this.isStuck) this.unsentBytes += bytes.length;
    this.onOutput(this.expects);
  }

  gap(bytes: number, offset: number, restore: string): void {
    if (this.expects !== null && offset !== this.expects + bytes) {
      throw new Error(`a gap of ${bytes} leads from ${this.expects} to ${offset}`);
    }
    this.gaps.push({ bytes, offset, restore });
    this.expects = offset;
  }

  resized(size: TerminalSize): void {
    this.sizes.push(size);
  }

  exited(code: number | null): void {
    this.exitCode = code;
  }

  displaced(): void {
    this.wasDisplaced = true;
  }

  inputFlows(): void {
    this.timesInputFlowed += 1;
  }

  /** The network takes all that it held back. */
  drain(): void {
    this.unsentBytes = 0;
    this.attachment?.pump();
  }

  get text(): string {
    return Buffer.concat(this.parts).toString();
  }

  get bytes(): Buffer {
    return Buffer.concat(this.parts);
  }
}
