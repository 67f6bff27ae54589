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

export function render(text: string): string {
  // A quote in a quote in a quote, or a list as deep, is text.
  const flat = text.replace(/^([ \t]*(?:[>*+-][ \t]*)+)/gm, (marks) =>
    (marks.match(/[>*+-]/g)?.length ?? 0) > DEEPEST ? marks.replace(/[>*+-]/g, "·") : marks,
  );
  return DOMPurify.sanitize(marked.parse(flat, { async: false }), {
    ALLOWED_TAGS: [
      ...["p", "br", "hr", "em", "strong", "del", "code", "pre", "blockquote", "ul", "ol", "li", "a", "figure"],
      ...["figcaption", "span", "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "input"],
    ],
    ALLOWED_ATTR: ["href", "class", "start", "align", "type", "checked", "disabled"],
    ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  });
}
