/** Reads a file as text, or says what it is instead. */

import { LONGEST_MESSAGE } from "./chats.svelte";
import type { PdfRead, Progress } from "./pdf";

export type Read =
  | { kind: "text"; text: string }
  /** Too large for any message; `letters` is how many it has at least. */
  | { kind: "large"; letters: number }
  | { kind: "picture" | "binary" | "unreadable" }
  | PdfRead;

/** As much of a file as is used here. */
export interface Readable {
  readonly name: string;
  readonly type: string;
  readonly size: number;
  arrayBuffer(): Promise<ArrayBuffer>;
  slice(start: number, end: number): { arrayBuffer(): Promise<ArrayBuffer> };
}

/** A character has at most this many bytes in UTF-8 for each of its UTF-16 units. */
const BYTES_PER_LETTER = 3;

/** How much of a file shows what it is. */
const HEAD_BYTES = 4096;

/** First bytes of pictures, for files whose name does not tell. */
const PICTURES = ["\x89PNG", "\xff\xd8\xff", "GIF8"];

/** UTF-8 with or without a byte order mark, UTF-16 with one; null if the bytes are no text. */
export function decode(bytes: Uint8Array): string | null {
  const [first, second] = bytes;
  const encoding =
    first === 0xff && second === 0xfe ? "utf-16le"
    : first === 0xfe && second === 0xff ? "utf-16be"
    : "utf-8";
  try {
    const text = new TextDecoder(encoding, { fatal: true }).decode(bytes);
    return text.includes("\0") ? null : text;
  } catch {
    return null;
  }
}

/** Whether files are dragged, and not text or a link. */
export const holdsFiles = (dragged: DataTransfer): boolean => dragged.types.includes("Files");

/** A drawing of SVG is text. */
const isPicture = (type: string, head: string): boolean =>
  (type.startsWith("image/") && !type.startsWith("image/svg")) || PICTURES.some((start) => head.startsWith(start));

/** Other bytes may stand before a PDF's first line. */
const isPdf = ({ name, type }: Readable, head: string): boolean =>
  head.startsWith("%PDF-") || type === "application/pdf" || /\.pdf$/i.test(name);

export async function read(file: Readable, progress: Progress = () => {}, signal = new AbortController().signal): Promise<Read> {
  try {
    const bytes = new Uint8Array(await file.slice(0, HEAD_BYTES).arrayBuffer());
    const head = String.fromCharCode(...bytes);
    if (isPicture(file.type, head)) return { kind: "picture" };
    if (isPdf(file, head)) return await (await import("./pdf")).readPdf(file, progress, signal);
    const wide = head.startsWith("\xff\xfe") || head.startsWith("\xfe\xff");
    if (!wide && head.includes("\0")) return { kind: "binary" };
    // What cannot fit is not read.
    const letters = Math.ceil(file.size / BYTES_PER_LETTER);
    if (letters > LONGEST_MESSAGE) return { kind: "large", letters };
    const text = decode(new Uint8Array(await file.arrayBuffer()));
    return text === null ? { kind: "binary" } : { kind: "text", text };
  } catch {
    // A folder, or a file that is gone.
    return { kind: "unreadable" };
  }
}
