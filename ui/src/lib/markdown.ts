/**
 * Markdown to HTML that can do nothing: a model's output is a stranger's text. No scripts, no styles, no images, and links
 * that only a click follows.
 */

import DOMPurify from "dompurify";
import { Marked } from "marked";

/** Deeper nesting than anybody writes would take the parser for ever. */
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
 * The top-level blocks of a text, so that of a growing one only its last block is drawn anew. `before` are the blocks of
 * the same text when it was shorter; only what followed all but the last of them is parsed.
 */
export function blocks(written: string, before: string[] = []): string[] {
  const text = written.replaceAll("\r\n", "\n");
  const settled = before.slice(0, -1);
  const start = settled.reduce((length, block) => length + block.length, 0);
  if (start > 0 && !text.startsWith(settled.join(""))) return blocks(written);
  const rest = text.slice(start);
  const fresh: string[] = [];
  for (const { type, raw } of marked.lexer(flatten(rest))) {
    // Space belongs to what it follows.
    if (type === "space" && fresh.length > 0) fresh[fresh.length - 1] += raw;
    else fresh.push(raw);
  }
  // The parser may have read some letters as others of its own; then the rest is one block.
  if (fresh.reduce((length, block) => length + block.length, 0) !== rest.length) return [...settled, rest];
  let at = start;
  return [...settled, ...fresh.map((block) => text.slice(at, (at += block.length)))];
}

/** A quote in a quote in a quote, or a list as deep, is text. */
function flatten(text: string): string {
  return text.replace(/^([ \t]*(?:[>*+-][ \t]*)+)/gm, (marks) =>
    (marks.match(/[>*+-]/g)?.length ?? 0) > DEEPEST ? marks.replace(/[>*+-]/g, "·") : marks,
  );
}

/** One block, or a whole text, as HTML. */
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
