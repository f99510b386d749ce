/** More than any object that a cluster keeps (1.5 MiB by etcd's default). */
const JSON_LIMIT_CHARS = 8 * 1024 * 1024;

/** A line without its end. */
export interface TextLine {
  text: string;
  /** It was longer than the splitter's limit: what came after has been let go. */
  isCut: boolean;
}

/**
 * Puts lines together from pieces of text, each of which is looked through once. Of a line no more than
 * `limitChars` are kept, always the same ones however it is cut into pieces; it is given as soon as it is
 * longer, for it may never end.
 */
export class LineSplitter {
  readonly #limitChars: number;
  #begun = "";
  #isDropping = false;

  constructor(limitChars: number) {
    this.#limitChars = limitChars;
  }

  push(piece: string): TextLine[] {
    const lines: TextLine[] = [];
    let from = 0;
    for (let end = piece.indexOf("\n"); end >= 0; end = piece.indexOf("\n", from)) {
      this.#append(piece.slice(from, end), lines);
      if (!this.#isDropping) lines.push({ text: this.#begun, isCut: false });
      this.#begun = "";
      this.#isDropping = false;
      from = end + 1;
    }
    this.#append(piece.slice(from), lines);
    return lines;
  }

  #append(text: string, lines: TextLine[]): void {
    if (this.#isDropping) return;
    this.#begun += text;
    if (this.#begun.length <= this.#limitChars) return;
    lines.push({ text: withoutHalfCharacter(this.#begun.slice(0, this.#limitChars)), isCut: true });
    this.#begun = "";
    this.#isDropping = true;
  }
}

function withoutHalfCharacter(text: string): string {
  return text.replace(/[\ud800-\udbff]$/, "");
}

/** A JSON value of each line of `body`. One decoder for all of it: a character may be split over two reads. */
export async function* jsonLines<T>(body: ReadableStream<Uint8Array>): AsyncGenerator<T> {
  const decoder = new TextDecoder();
  const splitter = new LineSplitter(JSON_LIMIT_CHARS);
  for await (const chunk of body) {
    for (const { text } of splitter.push(decoder.decode(chunk, { stream: true }))) {
      if (text !== "") yield JSON.parse(text) as T;
    }
  }
}
