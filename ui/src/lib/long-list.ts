/** Reads a list that has grown from its last items on: reading all of it again, at each token, would cost too much. */

import type { Token, Tokens } from "marked";

/**
 * The items at the end that are read again. What follows an item can change it; and whether items stand apart shows only
 * between two of them.
 */
const READ_AGAIN = 2;

/** The tokens of `text`, which begins with the list `before`; undefined if they cannot be told from the end alone. */
export function grownList(before: Token | undefined, text: string, lex: (text: string) => Token[]): Token[] | undefined {
  if (before?.type !== "list") return undefined;
  const list = before as Tokens.List;
  const kept = list.items.slice(0, -READ_AGAIN);
  const start = kept.reduce((length, item) => length + item.raw.length, 0);
  if (start === 0 || kept.map((item) => item.raw).join("") !== text.slice(0, start)) return undefined;
  const [first, ...rest] = lex(text.slice(start));
  if (first?.type !== "list") return undefined;
  const end = first as Tokens.List;
  if (end.loose !== list.loose) return undefined;
  return [{ ...list, raw: text.slice(0, start) + end.raw, items: [...kept, ...end.items] }, ...rest];
}
