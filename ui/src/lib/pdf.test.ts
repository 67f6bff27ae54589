/** PDF files, written by hand: each object, the table of their places, and the trailer. */
// @ts-expect-error (it comes without types)
import { WorkerMessageHandler } from "pdfjs-dist/legacy/build/pdf.worker.mjs";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { type PdfRead, readPdf } from "./pdf";
import { pagesOf } from "./pdf-pages";

/** A worker's two ends in one thread: jsdom has no workers. */
const ports: MessagePort[] = [];
function worker(): unknown {
  const { port1, port2 } = new MessageChannel();
  const clones = (port: MessagePort) => ({
    // Buffers of jsdom's realm cannot be handed over, but copied.
    postMessage: (message: unknown) => port.postMessage(message),
    addEventListener: (kind: "message", take: (event: { data: unknown }) => void) => {
      port.addEventListener(kind, ({ data }: MessageEvent<unknown>) => take({ data }));
      port.start();
    },
    removeEventListener: () => {},
    terminate: () => [port1, port2].forEach((end) => end.close()),
  });
  ports.push(port1, port2);
  WorkerMessageHandler.initializeFromPort(clones(port2));
  return clones(port1);
}

beforeEach(() => vi.stubGlobal("Worker", function () { return worker(); }));
afterEach(() => {
  vi.unstubAllGlobals();
  ports.splice(0).forEach((port) => port.close());
});

/** A file of these objects; the first is the catalogue. */
function file(objects: string[], trailer = ""): Blob {
  let text = "%PDF-1.4\n";
  const places = objects.map((object, index) => {
    const at = text.length;
    text += `${index + 1} 0 obj\n${object}\nendobj\n`;
    return `${String(at).padStart(10, "0")} 00000 n \n`;
  });
  const table = text.length;
  text += `xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${places.join("")}`;
  text += `trailer\n<< /Size ${objects.length + 1} /Root 1 0 R ${trailer} >>\nstartxref\n${table}\n%%EOF\n`;
  return new Blob([text]);
}

const stream = (text: string, more = ""): string => `<< /Length ${text.length} ${more} >>\nstream\n${text}\nendstream`;

const LATIN = ["<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"];

/** Text in two-byte codes, with the table that says what they mean. */
const UNICODE = [
  "<< /Type /Font /Subtype /Type0 /BaseFont /Any /Encoding /Identity-H /DescendantFonts [4 0 R] /ToUnicode 5 0 R >>",
  "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /Any /CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> /DW 1000 /FontDescriptor 6 0 R >>",
  stream(
    "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /Any def\n1 begincodespacerange <0000> <FFFF> endcodespacerange\n3 beginbfchar <0001> <65E5> <0002> <672C> <0003> <00FC> endbfchar\nendcmap end end",
  ),
  "<< /Type /FontDescriptor /FontName /Any /Flags 4 /FontBBox [0 0 1000 1000] /ItalicAngle 0 /Ascent 800 /Descent -200 /CapHeight 700 /StemV 80 >>",
];

/** Pages with this content each, set in the first of these fonts. */
function pages(contents: string[], fonts = LATIN, trailer = ""): Blob {
  const first = 3 + fonts.length;
  const kids = contents.map((_, index) => `${first + 2 * index} 0 R`);
  const of = contents.flatMap((content, index) => [
    `<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Resources << /Font << /F1 3 0 R >> >> /Contents ${first + 2 * index + 1} 0 R >>`,
    stream(content),
  ]);
  return file(["<< /Type /Catalog /Pages 2 0 R >>", `<< /Type /Pages /Kids [${kids.join(" ")}] /Count ${kids.length} >>`, ...fonts, ...of], trailer);
}

/** Lines from a point downwards. */
const lines = (x: number, y: number, ...texts: string[]): string =>
  `BT /F1 12 Tf 14 TL ${x} ${y} Td ${texts.map((text) => `(${text}) Tj T*`).join(" ")} ET`;

const read = (pdf: Blob, seen: [number, number][] = [], signal = new AbortController().signal): Promise<PdfRead> =>
  readPdf(pdf, (page, of) => seen.push([page, of]), signal);

describe("a PDF", () => {
  it("is its pages' lines, with paragraphs apart", async () => {
    const pdf = pages([lines(50, 700, "Bees make honey.", "They dance.") + lines(50, 640, "Wax is next."), lines(50, 700, "The end")]);
    const text = "[Page 1]\nBees make honey.\nThey dance.\n\nWax is next.\n\n[Page 2]\nThe end";
    expect(await read(pdf)).toEqual({ kind: "text", text });
    expect(pagesOf({ name: "bees.PDF", text })).toBe(2);
    expect(pagesOf({ name: "bees.txt", text })).toBeNull();
    expect(pagesOf({ name: "bees.pdf", text: "what was typed instead" })).toBeNull();
  });

  it("with two columns has one after the other", async () => {
    const pdf = pages([lines(50, 700, "Left one", "left two") + lines(320, 700, "Right one", "right two")]);
    expect(await read(pdf)).toEqual({ kind: "text", text: "[Page 1]\nLeft one\nleft two\n\nRight one\nright two" });
  });

  it("has letters of every script", async () => {
    const content = "BT /F1 12 Tf 50 700 Td <000100020003> Tj ET";
    expect(await read(pages([content], UNICODE))).toEqual({ kind: "text", text: "[Page 1]\n日本ü" });
    const accents = lines(50, 700, "Stra\\337e \\200 5 \\223na\\357ve\\224");
    expect(await read(pages([accents]))).toEqual({ kind: "text", text: "[Page 1]\nStraße € 5 “naïve”" });
  });

  it("of an old Japanese kind is read with a table of the app's own", async () => {
    const fonts = [
      "<< /Type /Font /Subtype /Type0 /BaseFont /Ryumin-Light /Encoding /90ms-RKSJ-H /DescendantFonts [4 0 R] >>",
      "<< /Type /Font /Subtype /CIDFontType0 /BaseFont /Ryumin-Light /CIDSystemInfo << /Registry (Adobe) /Ordering (Japan1) /Supplement 2 >> /DW 1000 /FontDescriptor 5 0 R >>",
      UNICODE[3]!,
    ];
    // Shift JIS.
    expect(await read(pages(["BT /F1 12 Tf 50 700 Td <93FA967B> Tj ET"], fonts))).toEqual({ kind: "text", text: "[Page 1]\n日本" });
  });

  it("of three hundred pages is read to its end, and says how far it is", async () => {
    const seen: [number, number][] = [];
    const pdf = pages(Array.from({ length: 300 }, (_, index) => lines(50, 700, `This is page ${index + 1}.`)));
    const found = await read(pdf, seen);
    expect(found.kind).toBe("text");
    const { text } = found as { text: string };
    expect(text.endsWith("[Page 300]\nThis is page 300.")).toBe(true);
    expect(pagesOf({ name: "long.pdf", text })).toBe(300);
    expect([seen.length, seen[0], seen.at(-1)]).toEqual([300, [1, 300], [300, 300]]);
  }, 30_000);

  it("that has pictures only is a scan", async () => {
    expect(await read(pages(["0 0 100 100 re f", "q Q"]))).toEqual({ kind: "scan" });
  });

  it("with a password stays closed", async () => {
    const lock = `/Encrypt << /Filter /Standard /V 1 /R 2 /O <${"11".repeat(32)}> /U <${"22".repeat(32)}> /P -4 >> /ID [<${"00".repeat(16)}> <${"00".repeat(16)}>]`;
    expect(await read(pages([lines(50, 700, "secret")], LATIN, lock))).toEqual({ kind: "locked" });
  });

  it("that is none, or is damaged, is called so", async () => {
    expect(await read(new Blob(["%PDF-1.7\n"]))).toEqual({ kind: "damaged" });
    expect(await read(new Blob([]))).toEqual({ kind: "damaged" });
    const whole = await pages([lines(50, 700, "Bees")]).arrayBuffer();
    expect(await read(new Blob([whole.slice(0, 120)]))).toEqual({ kind: "damaged" });
  });

  it("with more pages than are read, or more text than a message holds, is refused", async () => {
    const count = 1001;
    const kids = Array.from({ length: count }, () => "3 0 R").join(" ");
    const blank = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] >>";
    const many = file(["<< /Type /Catalog /Pages 2 0 R >>", `<< /Type /Pages /Kids [${kids}] /Count ${count} >>`, blank]);
    expect(await read(many)).toEqual({ kind: "pages", pages: 1001 });
    const page = lines(50, 700, ...Array.from({ length: 50 }, () => "x".repeat(80)));
    expect(await read(pages(Array.from({ length: 110 }, () => page)))).toEqual({ kind: "overlong", page: 99, pages: 110 });
    const heavy = new Blob([]);
    Object.defineProperty(heavy, "size", { value: 200_000_001 });
    expect(await read(heavy)).toEqual({ kind: "heavy" });
  });

  it("is no longer read once that is not wanted", async () => {
    const stopping = new AbortController();
    const seen: [number, number][] = [];
    const pdf = pages(Array.from({ length: 300 }, () => lines(50, 700, "x")));
    const found = readPdf(pdf, (page, of) => (seen.push([page, of]), page === 3 && stopping.abort()), stopping.signal);
    expect(await found).toEqual({ kind: "cancelled" });
    expect(seen.length).toBe(3);
  });
});
