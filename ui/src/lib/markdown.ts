/**
 * Converts Markdown to inert HTML, since a model's output is untrusted: no scripts, no styles, no images, and no links that
 * load anything without a click.
 */

import createPurifier from "dompurify";
import { Marked, Renderer, type Token, type Tokens } from "marked";

import { formulas } from "./formula";
import { grownList } from "./long-list";
import { words } from "./words";

/** Maximum nesting of quotes and lists; deeper nesting would hang the parser. */
const DEEPEST = 40;

const defaults = new Renderer();

/** The only tags that are not shown as text: what models write in tables and between words, without attributes. */
const PLAIN_TAG = /^<(?:br ?\/?|\/?(?:kbd|mark|sub|sup))>$/i;

/** Whether the parser is inside a link. */
let linked = false;

/** The class of a list whose numbers need more room than usual. */
export function room(list: Tokens.List): "" | "wide" | "wider" {
  const digits = list.ordered ? String(Number(list.start) + list.items.length - 1).length : 1;
  if (digits < 3) return "";
  return digits < 6 ? "wide" : "wider";
}

const marked = new Marked(formulas(escape), {
  gfm: true,
  breaks: false,
  renderer: {
    code({ text, lang }) {
      const name = (lang ?? "").split(/\s/)[0] ?? "";
      const caption = `<figcaption><span>${escape(name)}</span></figcaption>`;
      const kind = name ? "code" : "code nameless";
      return `<figure class="${kind}">${caption}<pre tabindex="0"><code>${escape(text)}</code></pre></figure>`;
    },
    /** A picture is a link to it. Inside a link it is its text, since links do not nest. */
    image({ href, text }) {
      const name = escape(text || href);
      return linked ? name : `<a href="${escape(href)}">${name}</a>`;
    },
    link(token) {
      linked = true;
      try {
        return defaults.link.call(this, token);
      } finally {
        linked = false;
      }
    },
    list(token) {
      const width = room(token);
      return defaults.list.call(this, token).replace(/^<ol/, width ? `<ol class="${width}"` : "<ol");
    },
    table(token) {
      const name = escape(words.table);
      return `<div class="table" role="region" aria-label="${name}" tabindex="0">${defaults.table.call(this, token)}</div>`;
    },
    checkbox({ checked }) {
      const name = escape(checked ? words.done : words.notDone);
      return `<input type="checkbox" aria-label="${name}" disabled${checked ? " checked" : ""}> `;
    },
    /** Blocks are rendered one by one, so the links that use a definition do not find it: it stays readable. */
    def({ raw }) {
      return `<p>${escape(raw.trim())}</p>`;
    },
    html({ text }) {
      return PLAIN_TAG.test(text) ? text : escape(text);
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
  for (const { type, raw } of lex(rest)) {
    // White space belongs to the block before it.
    if (type === "space" && fresh.length > 0) fresh[fresh.length - 1] += raw;
    else fresh.push(raw);
  }
  // The parser may have normalized some characters; then lengths differ and the rest is one block.
  if (fresh.reduce((length, block) => length + block.length, 0) !== rest.length) return [...settled, rest];
  let at = start;
  return [...settled, ...fresh.map((block) => text.slice(at, (at += block.length)))];
}

/** The last texts that were lexed: one that grows is split into blocks first, and then shown. */
const lexed = new Map<string, Token[]>();
const MOST_LEXED = 8;

/** The tokens of a text. Nobody changes them. */
export function lex(text: string): Token[] {
  const known = lexed.get(text);
  if (known) return known;
  const flat = flatten(text);
  const all = (part: string): Token[] => marked.lexer(part);
  const shorter = [...lexed.keys()].filter((earlier) => earlier && text.startsWith(earlier)).sort((one, other) => other.length - one.length)[0];
  const tokens = (shorter && grownList(lexed.get(shorter)?.[0], flat, all)) || all(flat);
  if (lexed.size >= MOST_LEXED) lexed.delete(lexed.keys().next().value ?? "");
  lexed.set(text, tokens);
  return tokens;
}

/** Turns the markers of quotes and lists nested deeper than `DEEPEST` into plain text. */
function flatten(text: string): string {
  return text.replace(/^[ \t]*(?:>[ \t]*|[*+-][ \t]+|\d{1,9}[.)][ \t]+)+/gm, (marks) =>
    (marks.match(/[>*+.)-]/g)?.length ?? 0) > DEEPEST ? marks.replace(/[>*+.)-]/g, "·") : marks,
  );
}

const purifier = createPurifier(window);

// The address of a link shows before it is clicked.
purifier.addHook("afterSanitizeAttributes", (element) => {
  const to = element.getAttribute("href");
  if (to) element.setAttribute("title", to);
});

/** Renders one block, or a whole text, as HTML. */
export function render(text: string): string {
  return parse(lex(text));
}

/** Renders tokens as HTML. */
export function parse(tokens: Token[]): string {
  return purifier.sanitize(marked.parser(tokens), {
    ALLOWED_TAGS: [
      ...["p", "br", "hr", "em", "strong", "del", "code", "pre", "blockquote", "ul", "ol", "li", "a", "figure", "div"],
      ...["figcaption", "span", "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "input"],
      ...["kbd", "mark", "sub", "sup"],
    ],
    ALLOWED_ATTR: ["href", "class", "start", "align", "type", "checked", "disabled", "role", "aria-label", "tabindex"],
    // Values of attributes that hold no address, and so need not look like one.
    ADD_URI_SAFE_ATTR: ["start", "align", "type", "checked", "disabled", "role", "aria-label", "tabindex"],
    ALLOW_DATA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  });
}
