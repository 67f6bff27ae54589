/** How the pages of a PDF file stand in its text, so that a model can name them and a card can count them. */

import type { Attachment } from "./attachments";

/** Files of more pages or bytes are not read. */
export const MOST_PAGES = 1000;
export const MOST_PDF_BYTES = 200_000_000;

/** The line before a page's text. */
export const pageMark = (page: number): string => `[Page ${page}]`;

/** The number of pages of a file that was read from a PDF; null for any other. */
export function pagesOf({ name, text }: Attachment): number | null {
  if (!/\.pdf$/i.test(name) || !text.startsWith(pageMark(1))) return null;
  let pages = 1;
  for (const [, number] of text.matchAll(/^\[Page (\d+)\]$/gm)) if (Number(number) === pages + 1) pages++;
  return pages;
}
