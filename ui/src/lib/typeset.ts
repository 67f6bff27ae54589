/** Typesetting of formulas, loaded with KaTeX and its fonts when the first formula is shown. */

import "katex/dist/katex.min.css";

import createPurifier from "dompurify";
import katex from "katex";

const purifier = createPurifier(window);

/** Typeset formulas by their source, so that a block that grows does not typeset the same ones over and over. */
const known = new Map<string, string | undefined>();
const MOST_KNOWN = 500;

/** Typesets LaTeX as HTML with MathML for screen readers; undefined if KaTeX cannot read it. */
export function typeset(latex: string, display: boolean): string | undefined {
  const key = `${display ? "$$" : "$"}${latex}`;
  if (!known.has(key)) {
    if (known.size >= MOST_KNOWN) known.clear();
    known.set(key, html(latex, display));
  }
  return known.get(key);
}

function html(latex: string, display: boolean): string | undefined {
  let refused = false;
  let written: string;
  try {
    written = katex.renderToString(latex, {
      displayMode: display,
      // No links, pictures, classes or ids from a model.
      trust: () => !(refused = true),
      strict: "ignore",
      throwOnError: true,
      maxSize: 20,
      maxExpand: 500,
    });
  } catch {
    return undefined;
  }
  if (refused) return undefined;
  // KaTeX escapes its input; what it does not need is removed all the same.
  return purifier.sanitize(written.replace(/<annotation [^]*?<\/annotation>/g, ""), {
    USE_PROFILES: { html: true, mathMl: true, svg: true },
    FORBID_TAGS: ["a", "img", "image", "style", "form", "input", "button", "use", "audio", "video"],
    FORBID_ATTR: ["href", "xlink:href", "src", "id", "name"],
    ALLOW_DATA_ATTR: false,
  });
}
