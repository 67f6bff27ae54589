/**
 * Converts Markdown to inert HTML, since a model's output is untrusted: no scripts, no styles, no images, and no links
 * that load anything without a click.
 */

import DOMPurify from "dompurify";
import { Marked } from "marked";

/** Maximum nesting of quotes and lists; deeper nesting would hang the parser. */
const DEEPEST = 40;

const marked = new Marked({
  gfm: true,
  breaks: false,
  renderer: {
    code({ text, lang }) {
      const name = (lang ?? "").split(/\s/)[0] ?? "";
      return `<figure class="code"><figcaption><span>${escape(name)}</span></figcaption><pre><code>${escape(text)}</code></pre></figure>`;
    },
    image({ href, text }) {
      return `<a href="${escape(href)}">${escape(text || href)}</a>`;
    },
    html({ text }) {
      return escape(text);
    },
  },
});

function escape(text: string): string {
  return text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
}

/**
 * Splits a text into its top-level blocks, so that only the last block of a growing text is rendered again. `before` are
 * the blocks of the same text when it was shorter; all but the last of them are reused without parsing.
 */
export function blocks(written: string, before: string[] = []): string[] {
  const text = written.replaceAll("\r\n", "\n");
  const settled = before.slice(0, -1);
  const start = settled.reduce((length, block) => length + block.length, 0);
  if (start > 0 && !text.startsWith(settled.join(""))) return blocks(written);
  const rest = text.slice(start);
  const fresh: string[] = [];
  for (const { type, raw } of marked.lexer(flatten(rest))) {
    // White space belongs to the block before it.
    if (type === "space" && fresh.length > 0) fresh[fresh.length - 1] += raw;
    else fresh.push(raw);
  }
  // The parser may have normalized some characters; then lengths differ and the rest is one block.
  if (fresh.reduce((length, block) => length + block.length, 0) !== rest.length) return [...settled, rest];
  let at = start;
  return [...settled, ...fresh.map((block) => text.slice(at, (at += block.length)))];
}

/** Turns the markers of quotes and lists nested deeper than `DEEPEST` into plain text. */
function flatten(text: string): string {
  return text.replace(/^([ \t]*(?:[>*+-][ \t]*)+)/gm, (marks) =>
    (marks.match(/[>*+-]/g)?.length ?? 0) > DEEPEST ? marks.replace(/[>*+-]/g, "·") : marks,
  );
}

/** Renders one block, or a whole text, as HTML. */
export function render(text: string): string {
  return DOMPurify.sanitize(marked.parse(flatten(text), { async: false }), {
    ALLOWED_TAGS: [
      ...["p", "br", "hr", "em", "strong", "del", "code", "pre", "blockquote", "ul", "ol", "li", "a", "figure"],
      ...["figcaption", "span", "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "input"],
    ],
    ALLOWED_ATTR: ["href", "class", "start", "align", "type", "checked", "disabled"],
    ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  });
}
