import { mockIPC } from "@tauri-apps/api/mocks";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { HandedFile } from "./bindings";
import { type Dropped, drops } from "./drops.svelte";
import { read } from "./text-file";

/** What the shell has: files by number, and what was dropped. */
let files: Record<number, string>;
let handed: HandedFile[];
let taken: Dropped[][];
let stops: (() => void)[];

const bytes = (text: string): string => String.fromCharCode(...new TextEncoder().encode(text));

beforeEach(() => {
  [files, handed, taken] = [{}, [], []];
  mockIPC((command, given) => {
    if (command === "dropped_files") return handed;
    const { number, start, end } = given as { number: number; start: number; end: number };
    // As an error of a command: an object, not an Error.
    // eslint-disable-next-line @typescript-eslint/only-throw-error
    if (files[number] === undefined) throw { code: "not_read", message: "it is no file", hint: null };
    // At most ten bytes at once.
    return btoa(bytes(files[number]).slice(start, Math.min(end, start + 10)));
  });
  stops = [drops.serve((dropped) => taken.push(dropped)), drops.hear()];
});

afterEach(() => {
  for (const stop of stops) stop();
  vi.restoreAllMocks();
});

function drag(kind: string, types: string[], dragged: File[] = []): DragEvent {
  const event = new Event(kind, { cancelable: true });
  Object.assign(event, { dataTransfer: { types, files: dragged, dropEffect: "none" } });
  return event as DragEvent;
}

const tell = (news: string): boolean => window.dispatchEvent(new Event(news));
const file = (number: number, name: string, text: string, more: Partial<HandedFile> = {}): HandedFile => {
  files[number] = text;
  return { number, name, bytes: new TextEncoder().encode(text).length, found: { kind: "other" }, ...more };
};

describe("files that the web view gives the page", () => {
  it("come with what the shell says they are", async () => {
    const [a, b] = [new File(["a"], "a.txt"), new File(["b"], "b.gguf")];
    handed = [file(1, "a.txt", "a"), file(2, "b.gguf", "b", { found: { kind: "model", path: "/m/b.gguf" } })];
    const over = drag("dragover", ["Files"]);
    drops.dragged(over);
    expect([over.defaultPrevented, over.dataTransfer?.dropEffect, drops.over]).toEqual([true, "copy", true]);
    drops.dropped(drag("drop", ["Files"], [a, b]));
    expect(drops.over).toBe(false);
    await vi.waitFor(() => expect(taken).toEqual([[{ file: a, found: { kind: "other" } }, { file: b, found: { kind: "model", path: "/m/b.gguf" } }]]));
  });

  it("come without it if the shell knows of others", async () => {
    const a = new File(["a"], "a.txt");
    drops.dropped(drag("drop", ["Files"], [a]));
    await vi.waitFor(() => expect(taken).toEqual([[{ file: a, found: undefined }]]));
  });

  it("are left to whoever took them first, and text to whoever writes it", () => {
    const event = drag("dragover", ["Files"]);
    event.preventDefault();
    drops.dragged(event);
    const text = drag("dragover", ["text/plain"]);
    drops.dragged(text);
    expect([drops.over, text.defaultPrevented]).toEqual([false, false]);
  });

  it("are not taken where no page wants them", () => {
    stops[0]!();
    const over = drag("dragover", ["Files"]);
    drops.dragged(over);
    tell("filesover");
    expect([over.defaultPrevented, drops.over]).toEqual([false, false]);
  });
});

describe("files that the web view keeps from the page", () => {
  it("are announced, and gone when they leave", () => {
    const over = drag("dragover", ["text/uri-list", "text/html"]);
    drops.dragged(over);
    // It may be a link.
    expect([over.defaultPrevented, drops.over]).toEqual([true, false]);
    tell("filesover");
    expect(drops.over).toBe(true);
    tell("filesgone");
    expect(drops.over).toBe(false);
  });

  it("are read by the shell, piece by piece, as any other file is", async () => {
    handed = [file(7, "Größe.md", "über zehn Zeichen lang"), file(8, "empty.txt", "")];
    tell("filesover");
    tell("filesdropped");
    await vi.waitFor(() => expect(taken).toHaveLength(1));
    expect(drops.over).toBe(false);
    const [text, empty] = taken[0]!;
    expect([text!.file.name, text!.file.size]).toEqual(["Größe.md", 23]);
    expect(await read(text!.file)).toEqual({ kind: "text", text: "über zehn Zeichen lang" });
    expect(await read(empty!.file)).toEqual({ kind: "text", text: "" });
  });

  it("say what they are where they are no text: a folder, a picture, or gone", async () => {
    handed = [{ number: 9, name: "folder", bytes: 0, found: { kind: "other" } }, file(10, "cat", "GIF89a"), file(11, "huge.txt", "abc", { bytes: 5e9 })];
    tell("filesdropped");
    await vi.waitFor(() => expect(taken).toHaveLength(1));
    const found = await Promise.all(taken[0]!.map(({ file }) => read(file)));
    expect(found.map(({ kind }) => kind)).toEqual(["unreadable", "picture", "large"]);
  });

  it("are nothing if a link was dropped", async () => {
    tell("filesdropped");
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(taken).toEqual([]);
  });
});
