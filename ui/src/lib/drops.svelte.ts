/**
 * Files that are dragged over the window, and dropped on it.
 *
 * Where the web view gives a page the files themselves, the shell adds what they are. Where it gives none, as on Linux, the
 * shell reports them and reads them for the page (`src-tauri/src/handed.rs`). Either way, the page in front gets the same.
 */

import { type Finding, type HandedFile, commands } from "./bindings";
import { call } from "./call";
import { mac } from "./keys";
import { inApp } from "./place";
import { type Readable, holdsFiles } from "./text-file";

/** What was dropped. */
export interface Dropped {
  file: Readable;
  /** What it is to HiveMind; a browser does not know. */
  found?: Finding;
}

/** Called with what was dropped; never with nothing. */
export type Take = (dropped: Dropped[]) => void;

/** How many bytes the shell reads at once. */
const PIECE = 4 << 20;

/** A file that the shell reads. */
class ShellFile implements Readable {
  readonly name: string;
  readonly type = "";
  readonly size: number;

  readonly #number: number;

  constructor({ name, bytes, number }: HandedFile) {
    [this.name, this.size, this.#number] = [name, bytes, number];
  }

  arrayBuffer(): Promise<ArrayBuffer> {
    return this.#read(0, this.size);
  }

  slice(start: number, end: number): { arrayBuffer: () => Promise<ArrayBuffer> } {
    return { arrayBuffer: () => this.#read(start, end) };
  }

  async #read(start: number, end: number): Promise<ArrayBuffer> {
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    const stop = Math.min(end, this.size);
    let at = start;
    // Once at least: of a folder, there is nothing to read.
    do {
      const text = atob(await call(commands.readHanded(this.#number, at, Math.min(stop, at + PIECE))));
      const piece = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
      // It has become shorter.
      if (piece.length === 0) break;
      pieces.push(piece);
      at += piece.length;
    } while (at < stop);
    return new Blob(pieces).arrayBuffer();
  }
}

/** What the shell says of what was dropped; nothing if it does not know. */
async function told(): Promise<HandedFile[]> {
  try {
    const handed: unknown = await commands.droppedFiles();
    return Array.isArray(handed) ? (handed as HandedFile[]) : [];
  } catch {
    return [];
  }
}

class Drops {
  /** Whether files are over the window, and the page in front takes some. */
  over = $state(false);

  #take: Take | undefined;

  /** Gives the page in front what is dropped, until what this returns is called. */
  serve(take: Take): () => void {
    this.#take = take;
    return () => {
      if (this.#take !== take) return;
      this.#take = undefined;
      this.over = false;
    };
  }

  /** Files enter the window, or move over it. */
  readonly dragged = (event: DragEvent): void => {
    if (!this.#take || !event.dataTransfer || event.defaultPrevented) return;
    const seen = holdsFiles(event.dataTransfer);
    // Linux calls files a list of URIs. So are links, of which the shell makes nothing.
    const unseen = inApp() && !mac() && event.dataTransfer.types.includes("text/uri-list");
    if (!seen && !unseen) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    if (seen) this.over = true;
  };

  /** Files are dropped. */
  readonly dropped = (event: DragEvent): void => {
    this.over = false;
    const files = [...(event.dataTransfer?.files ?? [])];
    const take = this.#take;
    if (!take || files.length === 0 || event.defaultPrevented) return;
    event.preventDefault();
    if (inApp()) void told().then((handed) => take(matched(files, handed)));
    else take(files.map((file) => ({ file })));
  };

  /** Files have left the window. */
  readonly left = (): void => {
    this.over = false;
  };

  /** Hears what the shell reports, until what this returns is called. */
  hear(): () => void {
    const stop = new AbortController();
    const hear = (news: string, act: () => void): void => window.addEventListener(news, act, { signal: stop.signal });
    hear("filesover", () => (this.over = this.#take !== undefined));
    hear("filesgone", this.left);
    hear("filesdropped", () => {
      this.over = false;
      const take = this.#take;
      void told().then((handed) => {
        if (handed.length > 0) take?.(handed.map((file) => ({ file: new ShellFile(file), found: file.found })));
      });
    });
    return () => stop.abort();
  }
}

/** The files with what the shell says of each: both are in the order in which they were dragged. */
function matched(files: File[], handed: HandedFile[]): Dropped[] {
  const same = files.length === handed.length;
  return files.map((file, at) => ({ file, found: (same ? handed[at] : handed.find(({ name }) => name === file.name))?.found }));
}

export const drops = new Drops();
