/**
 * Finds formulas in Markdown: `\(…\)`, `\[…\]`, `$…$`, `$$…$$`, and bare `\begin{align}` environments. Their source
 * becomes the text of `span.math` or `div.math`, which the window typesets once KaTeX has loaded. Code is never a
 * formula, and neither is a sum of money.
 */

import type { MarkedExtension, Tokens } from "marked";

/** Longer formulas stay as they were written, and bound the search for an end. */
const LONGEST = 4000;

/** Environments that are formulas by themselves. */
const ENVIRONMENT = /^\\begin\{((?:equation|align|alignat|gather)\*?|[bpvV]?matrix|cases|aligned)\}/;

/** A formula as found at the beginning of a text: its length there, its LaTeX, and whether it has lines of its own. */
interface Formula {
  length: number;
  latex: string;
  display: boolean;
}

/** The index of `close` in `text`; undefined if a blank line comes first, or nothing does. */
function end(text: string, from: number, close: string): number | undefined {
  const last = Math.min(text.length, from + LONGEST);
  for (let at = from; at < last; at += 1) {
    if (text.startsWith(close, at)) return at;
    if (text[at] === "\\") at += 1;
    else if (text[at] === "\n" && /^[ \t]*\n/.test(text.slice(at + 1, at + 80))) return undefined;
  }
  return undefined;
}

function between(text: string, open: string, close: string, display: boolean): Formula | undefined {
  const at = end(text, open.length, close);
  if (at === undefined) return undefined;
  const latex = text.slice(open.length, at);
  return latex.trim() ? { length: at + close.length, latex, display } : undefined;
}

/** Whether what stands between dollar signs is a formula, and not prose between two prices ("$5 (was 10$)"). */
function isLatex(text: string): boolean {
  if (/[\\^_={}<>]/.test(text)) return true;
  if (/[A-Za-z]{3,} +[A-Za-z]{3,}/.test(text)) return false;
  return !(/^\d[\d.,]*[ -]/.test(text) && /[A-Za-z]{2,}/.test(text));
}

/** The formula that `text` begins with. `before` is the character before it. */
export function formula(text: string, before = ""): Formula | undefined {
  if (text.startsWith("\\(")) return between(text, "\\(", "\\)", false);
  if (text.startsWith("\\[")) return between(text, "\\[", "\\]", true);
  if (!text.startsWith("$") || /[\w$\\]/.test(before)) return undefined;
  const display = text.startsWith("$$");
  const dollars = display ? "$$" : "$";
  const found = between(text, dollars, dollars, display);
  if (!found || !isLatex(found.latex)) return undefined;
  // As in Pandoc: no white space inside, no letter or digit behind.
  if (!display && (/^\s|\s$|[`\n]/.test(found.latex) || /[\w$]/.test(text[found.length] ?? ""))) return undefined;
  return found;
}

/** The formula on lines of its own that `text` begins with. */
function standing(text: string): Formula | undefined {
  const indent = /^ {0,3}/.exec(text)?.[0].length ?? 0;
  const rest = text.slice(indent);
  const environment = ENVIRONMENT.exec(rest)?.[1];
  const close = `\\end{${environment}}`;
  const at = environment ? end(rest, 7 + environment.length + 1, close) : undefined;
  let found: Formula | undefined;
  if (environment) found = at === undefined ? undefined : { length: at + close.length, latex: rest.slice(0, at + close.length), display: true };
  else if (/^(?:\\\[|\$\$)/.test(rest)) found = formula(rest);
  if (!found) return undefined;
  const tail = /^[ \t]*(?:\n|$)/.exec(rest.slice(found.length));
  return tail ? { ...found, length: indent + found.length + tail[0].length } : undefined;
}

/** The lines of a formula that has begun and not ended yet; they are shown as they were written. */
function begun(text: string): string | undefined {
  return /^ {0,3}(?:\\\[|\$\$|\\begin\{)[^]*?(?=\n[ \t]*\n|$)/.exec(text.slice(0, LONGEST))?.[0];
}

/** Hides formulas from the search for emphasis: `*` and `_` in them mean nothing. */
function masked(text: string): string {
  if (!/\$|\\[([]/.test(text)) return text;
  let out = "";
  for (let at = 0; at < text.length; ) {
    const code = text[at] === "`" ? /^(`+)(?!`)[^]*?[^`]\1(?!`)/.exec(text.slice(at, at + LONGEST))?.[0].length : undefined;
    const length = code ?? formula(text.slice(at, at + LONGEST + 4), text[at - 1])?.length;
    if (length === undefined) {
      const step = text[at] === "\\" ? 2 : text[at] === "`" ? (/^`+/.exec(text.slice(at))?.[0].length ?? 1) : 1;
      out += text.slice(at, at + step);
      at += step;
    } else {
      out += code ? text.slice(at, at + length) : "x".repeat(length);
      at += length;
    }
  }
  return out;
}

/** Where in the first paragraph of a text a formula begins that has lines of its own; negative if none does. */
function startInParagraph(text: string): number {
  const paragraph = text.slice(0, LONGEST).split(/\n[ \t]*\n/, 1)[0] ?? "";
  return paragraph.search(/\n {0,3}(?:\\\[|\$\$|\\begin\{)/);
}

export function formulas(escape: (text: string) => string): MarkedExtension {
  const shown = (token: Tokens.Generic, tag: string) =>
    `<${tag} class="math${token.display ? " display" : ""}">${escape(token.raw.trim())}</${tag}>`;
  return {
    hooks: { emStrongMask: masked },
    tokenizer: {
      /** A line of `=` in a formula makes no heading of what stands before it. */
      lheading(text) {
        const at = startInParagraph(text);
        return at >= 0 && text.slice(0, LONGEST).search(/\n {0,3}(?:=+|-+)[ \t]*(?:\n|$)/) > at ? undefined : false;
      },
    },
    extensions: [
      {
        name: "formula",
        level: "inline",
        // A backslash ends a piece of text anyway.
        start: (text) => text.indexOf("$"),
        tokenizer(text, tokens) {
          if (text[0] !== "$" && text[0] !== "\\") return undefined;
          const found = formula(text, tokens.at(-1)?.raw.slice(-1));
          return found && { type: "formula", raw: text.slice(0, found.length), display: found.display };
        },
        renderer: (token) => shown(token, "span"),
      },
      {
        name: "standing",
        level: "block",
        start(text) {
          const at = startInParagraph(text);
          return at < 0 ? undefined : at + 1;
        },
        tokenizer(text) {
          const found = standing(text);
          if (found) return { type: "standing", raw: text.slice(0, found.length), display: true };
          // Text after the end of a formula on its line makes it a part of a paragraph.
          const raw = formula(text.trimStart()) ? undefined : begun(text);
          return raw === undefined ? undefined : { type: "begun", raw };
        },
        renderer: (token) => shown(token, "div"),
      },
      { name: "begun", renderer: (token) => `<p class="begun">${escape(token.raw)}</p>` },
    ],
  };
}

/** The LaTeX of a formula as `formulas` found it, without its delimiters. */
export function latex(raw: string): string {
  return formula(raw)?.latex ?? raw;
}
