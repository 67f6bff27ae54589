/**
 * Reads the text of a PDF file, page by page. PDF.js is large and is loaded with the first PDF; what strangers wrote is
 * parsed in a worker of its own, which is stopped when it is done or no longer wanted.
 */

import { PDFWorker, type PDFPageProxy, getDocument } from "pdfjs-dist/legacy/build/pdf.mjs";
import script from "pdfjs-dist/legacy/build/pdf.worker.min.mjs?url";

import { LONGEST_MESSAGE } from "./chats.svelte";
import { MOST_PAGES, MOST_PDF_BYTES, pageMark } from "./pdf-pages";

export type PdfRead =
  | { kind: "text"; text: string }
  /** More text than a message holds, from this page on. */
  | { kind: "overlong"; page: number; pages: number }
  | { kind: "pages"; pages: number }
  | { kind: "heavy" }
  | { kind: "scan" | "locked" | "damaged" | "cancelled" };

export type Progress = (page: number, pages: number) => void;

type Content = Awaited<ReturnType<PDFPageProxy["getTextContent"]>>;

/** Lines further apart than this many times their height begin a paragraph. */
const PARAGRAPH_GAP = 1.8;

/** The tables that old Chinese, Japanese and Korean files need; each is a script of its own. */
const tables = import.meta.glob<string>("../../../node_modules/pdfjs-dist/cmaps/*.bcmap", { query: "?url&inline", import: "default" });

/** Hands PDF.js the tables that come with the app. */
class Tables {
  async fetch({ name }: { name: string }): Promise<{ cMapData: Uint8Array; isCompressed: boolean }> {
    const load = tables[`../../../node_modules/pdfjs-dist/cmaps/${name}.bcmap`];
    if (!load) throw new Error(`no table ${name}`);
    const data = atob((await load()).replace(/^[^,]*,/, ""));
    return { cMapData: Uint8Array.from(data, (letter) => letter.charCodeAt(0)), isCompressed: true };
  }
}

/** The text of a page: its lines, with an empty one between paragraphs and columns. */
export function textOf({ items }: Pick<Content, "items">): string {
  let text = "";
  let above: { y: number; height: number } | undefined;
  let begins = true;
  for (const item of items) {
    if (!("str" in item)) continue;
    if (begins && item.str.trim()) {
      const [y, height] = [item.transform[5] as number, item.height];
      const gap = above ? above.y - y : 0;
      if (above && (gap < -height / 2 || gap > PARAGRAPH_GAP * Math.max(height, above.height))) text += "\n";
      above = { y, height };
      begins = false;
    }
    text += item.str;
    if (item.hasEOL) {
      text += "\n";
      begins = true;
    }
  }
  return text
    .split("\n")
    .map((line) => line.trim())
    .join("\n")
    .replace(/\n{3,}/g, "\n\n")
    .replaceAll("\0", "")
    .trim();
}

export async function readPdf(file: Pick<Blob, "size" | "arrayBuffer">, progress: Progress, signal: AbortSignal): Promise<PdfRead> {
  if (file.size > MOST_PDF_BYTES) return { kind: "heavy" };
  const data = new Uint8Array(await file.arrayBuffer());
  if (signal.aborted) return { kind: "cancelled" };
  const port = new Worker(script, { type: "module" });
  const stopped = new Promise<PdfRead>((done) => {
    signal.addEventListener("abort", () => done({ kind: "cancelled" }));
  });
  const broken = new Promise<never>((_, failed) => {
    port.addEventListener("error", () => failed(new Error("the worker does not start")));
  });
  try {
    return await Promise.race([pages(data, port, progress, signal), stopped, broken]);
  } finally {
    port.terminate();
  }
}

async function pages(data: Uint8Array, port: Worker, progress: Progress, signal: AbortSignal): Promise<PdfRead> {
  const opening = getDocument({
    data,
    worker: PDFWorker.create({ port }),
    CMapReaderFactory: Tables,
    cMapUrl: "/",
    isEvalSupported: false,
    useWorkerFetch: false,
    useWasm: false,
    disableFontFace: true,
    useSystemFonts: false,
    verbosity: 0,
  });
  try {
    const document = await opening.promise;
    const { numPages } = document;
    if (numPages > MOST_PAGES) return { kind: "pages", pages: numPages };
    let text = "";
    let readable = false;
    for (let number = 1; number <= numPages; number++) {
      if (signal.aborted) return { kind: "cancelled" };
      progress(number, numPages);
      const page = await document.getPage(number);
      const found = textOf(await page.getTextContent());
      page.cleanup();
      readable ||= /[\p{L}\p{N}]/u.test(found);
      text += `${number > 1 ? "\n\n" : ""}${pageMark(number)}${found ? `\n${found}` : ""}`;
      if (text.length > LONGEST_MESSAGE) return { kind: "overlong", page: number, pages: numPages };
    }
    return readable ? { kind: "text", text } : { kind: "scan" };
  } catch (error) {
    return { kind: error instanceof Error && error.name === "PasswordException" ? "locked" : "damaged" };
  }
}
