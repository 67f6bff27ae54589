/** All user-visible text is in words.ts and nowhere else. */
import { describe, expect, it } from "vitest";

const sources = import.meta.glob<string>(["../**/*.svelte", "./*.svelte.ts"], { query: "?raw", import: "default", eager: true });

/** Names that are the same in every language, and values that are typed. */
const names = /^(HiveMind|Macintosh|Escape|Enter|127\.0\.0\.1:4483)$/;

/** The parts of a component that may be user-visible text. */
function readable(source: string): string[] {
  const code = source
    .replace(/<style>[^]*<\/style>/, "")
    .replace(/\/\*[^]*?\*\//g, "")
    .replace(/(^|\s)\/\/.*$/gm, "")
    .replace(/^\s*import .*$/gm, "");
  const markup = code.replace(/<script[^]*?<\/script>/, "").replace(/\{[^{}]*(\{[^{}]*\}[^{}]*)*\}/g, "");
  // A module without markup has nothing between tags.
  const between = !source.includes("</") ? [] : [...markup.matchAll(/>([^<>]*)</g)].map((match) => match[1]!.trim());
  const attributes = [...markup.matchAll(/(?:aria-label|title|placeholder)="([^"]*)"/g)].map((match) => match[1]!);
  const strings = [...code.matchAll(/(?<!(?:class|d|points)=)["'`]([^"'`\n]*)["'`]/g)].map((match) => match[1]!);
  const said = strings.filter((text) => /^[A-Z][a-z]{2,}$|[A-Za-z]{2,} [a-z]{2,} [a-z]/.test(text));
  return [...between, ...attributes, ...said].filter((text) => /[A-Za-z]{2,}/.test(text) && !names.test(text));
}

describe("words", () => {
  it("are found where they are", () => {
    expect(readable('<p class="quiet">Nothing here</p>')).toEqual(["Nothing here"]);
    expect(readable('<a title="Copies it">{words.copy}</a>')).toEqual(["Copies it"]);
    expect(readable('<script>const why = "it has gone away";</script>')).toEqual(["it has gone away"]);
  });

  it.each(Object.entries(sources))("of %s stand in one place", (_, source) => {
    expect(readable(source)).toEqual([]);
  });
});
