/**
 * Fills an element with a block of Markdown. When the block has grown, only the part of a list, a table or of code that
 * changed is rebuilt: a list of ten thousand tokens costs no more per token than a short one.
 */

import type { Token, Tokens } from "marked";

import { lex, parse, render, room } from "./markdown";

/** A block that grows at its end. */
interface Shape {
  /** What all parts have in common; if it changes, the whole block is rendered again. */
  shell: string;
  /** The parts, by their source. */
  parts: string[];
  /** Where the parts are, in the rendered block. */
  place(body: HTMLElement): Element | null;
  /** Renders one part. */
  make(index: number): Element | null;
}

function parsed(token: Token): HTMLElement {
  const body = document.createElement("div");
  body.innerHTML = parse([token]);
  return body;
}

function list(token: Tokens.List): Shape {
  return {
    shell: `list ${token.ordered} ${token.start} ${token.loose} ${room(token)}`,
    parts: token.items.map((item) => item.raw),
    place: (body) => body.firstElementChild,
    make: (index) => parsed({ ...token, items: token.items.slice(index, index + 1) }).querySelector("li"),
  };
}

function table(token: Tokens.Table): Shape {
  const source = (cells: Tokens.TableCell[]) => cells.map((cell) => cell.text).join("\n");
  return {
    shell: `table ${token.align.join()} ${token.rows.length > 0} ${source(token.header)}`,
    parts: token.rows.map(source),
    place: (body) => body.querySelector("tbody"),
    make: (index) => parsed({ ...token, rows: token.rows.slice(index, index + 1) }).querySelector("tbody tr"),
  };
}

/** The shape of a block; undefined if it is neither a list nor a table. */
function shapeOf(token: Token): Shape | undefined {
  if (token.type === "list") return list(token as Tokens.List);
  return token.type === "table" ? table(token as Tokens.Table) : undefined;
}

/** Replaces the differing parts; false if the element's contents are not as expected. */
function patch(body: HTMLElement, before: Shape, after: Shape): boolean {
  const place = after.place(body);
  if (!place || place.childElementCount !== before.parts.length) return false;
  for (const [index, source] of after.parts.entries()) {
    if (source === before.parts[index]) continue;
    const part = after.make(index);
    if (!part) return false;
    const old = place.children[index];
    if (old) old.replaceWith(part);
    else place.append(part, "\n");
  }
  while (place.childElementCount > after.parts.length) place.lastElementChild?.remove();
  return true;
}

/** Code that grows is only text. */
function append(body: HTMLElement, text: string): boolean {
  const shown = body.querySelector("code")?.firstChild;
  if (!(shown instanceof Text) || shown.nextSibling || !text.startsWith(shown.data)) return false;
  shown.appendData(text.slice(shown.length));
  return true;
}

/** Keeps an element filled with a block, as the block grows. */
export class Filled {
  #text = "";
  #token: Token | undefined;

  fill(body: HTMLElement, text: string): void {
    if (text === this.#text) return;
    const tokens = lex(text).filter(({ type }) => type !== "space");
    const before = this.#token;
    this.#token = tokens.length === 1 ? tokens[0] : undefined;
    this.#text = text;
    if (!before || !this.#token || !this.#grow(body, before, this.#token)) body.innerHTML = render(text);
  }

  #grow(body: HTMLElement, before: Token, after: Token): boolean {
    if (before.type === "code" && after.type === "code") return before.lang === after.lang && append(body, (after as Tokens.Code).text);
    const [old, now] = [shapeOf(before), shapeOf(after)];
    return old !== undefined && now !== undefined && old.shell === now.shell && patch(body, old, now);
  }
}
