import { describe, expect, it, vi } from "vitest";

import { decode, read } from "./text-file";

vi.mock("./pdf", () => ({ readPdf: () => Promise.resolve({ kind: "damaged" }) }));

const bytes = (...parts: (string | number[])[]): Uint8Array<ArrayBuffer> =>
  Uint8Array.from(parts.flatMap((part) => (typeof part === "string" ? [...new TextEncoder().encode(part)] : part)));

const wide = (text: string, little: boolean): number[] =>
  [...text].flatMap((letter) => [letter.charCodeAt(0) & 255, letter.charCodeAt(0) >> 8]).map((_, at, all) => all[little ? at : at ^ 1]!);

describe("text", () => {
  it("is UTF-8 with or without a mark, and UTF-16 with one", () => {
    expect(decode(bytes("naïve\r\n"))).toBe("naïve\r\n");
    expect(decode(bytes([0xef, 0xbb, 0xbf], "日本"))).toBe("日本");
    expect(decode(bytes([0xff, 0xfe], wide("日本ü", true)))).toBe("日本ü");
    expect(decode(bytes([0xfe, 0xff], wide("日本ü", false)))).toBe("日本ü");
    expect(decode(bytes())).toBe("");
  });

  it("is nothing else", () => {
    expect(decode(bytes("caf", [0xe9]))).toBeNull();
    expect(decode(bytes("a", [0], "b"))).toBeNull();
    expect(decode(bytes([0xff, 0xfe, 0x61, 0, 0, 0]))).toBeNull();
    expect(decode(bytes([0xff, 0xfe, 0x61]))).toBeNull();
  });
});

describe("a file", () => {
  const kind = async (name: string, type: string, ...parts: (string | number[])[]): Promise<string> =>
    (await read(new File([bytes(...parts)], name, { type }))).kind;

  it("is known by what it holds", async () => {
    expect(await read(new File(["a,b\n"], "a.csv"))).toEqual({ kind: "text", text: "a,b\n" });
    expect(await kind("a.txt", "", "caf", [0xe9])).toBe("binary");
    expect(await kind("a", "", [0x89, 0x50, 0x4e, 0x47, 0])).toBe("picture");
    expect(await kind("a.webp", "image/webp", "RIFF")).toBe("picture");
    expect(await kind("a.svg", "image/svg+xml", "<svg/>")).toBe("text");
    expect(await kind("a.txt", "text/plain", "%PDF-1.7\n")).toBe("damaged");
    expect(await kind("a.pdf", "", "no PDF at all")).toBe("damaged");
    expect(await kind("a.zip", "application/zip", "PK", [3, 4, 0])).toBe("binary");
    expect(await kind("late", "", "x".repeat(5000), [0])).toBe("binary");
    expect(await kind("wide.txt", "", [0xff, 0xfe], wide("wide", true))).toBe("text");
  });

  it("that cannot fit is not read", async () => {
    const file = new File(["x".repeat(1_500_000)], "log.txt");
    expect(await read(file)).toEqual({ kind: "large", letters: 500_000 });
  });

  it("that is gone is told of", async () => {
    const file = new File(["x"], "gone.txt");
    file.slice = () => ({ arrayBuffer: () => Promise.reject(new DOMException("gone", "NotReadableError")) }) as Blob;
    expect(await read(file)).toEqual({ kind: "unreadable" });
  });
});
