import { describe, expect, it } from "vitest";

import { words } from "./lib/words";
import css from "./tokens.css?raw";

const accents = Object.keys(words.accents);

const [light = "", dark = ""] = css.split('[data-theme="dark"] {\n  color-scheme');

/** The declarations of an accent in light or dark mode. */
function accent(name: string, look: string): string {
  const found = new RegExp(`\\[data-accent="${name}"\\] {([^}]*)}`).exec(look);
  if (!found?.[1]) throw new Error(`no accent ${name}`);
  return found[1];
}

function colour(name: string, look: string): string {
  const found = new RegExp(`--${name}: (#[0-9a-f]{6})`).exec(look) ?? new RegExp(`--${name}: (#[0-9a-f]{6})`).exec(light);
  if (!found?.[1]) throw new Error(`no colour --${name}`);
  return found[1];
}

/** Relative luminance and contrast, as WCAG 2 defines them. */
function contrast(a: string, b: string): number {
  const luminance = (hex: string) =>
    [1, 3, 5]
      .map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
      .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index]!, 0);
  const [bright, dim] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
  return (bright + 0.05) / (dim + 0.05);
}

describe.each([
  ["light", light],
  ["dark", dark],
])("in %s", (_, look) => {
  it.each([
    ...["paper", "paper-2", "paper-3"].flatMap((ground) => ["ink", "ink-2"].map((ink) => [ink, ground])),
    ["ink-3", "paper"],
    ["good", "paper"],
    ["warn", "paper"],
    ["bad", "paper"],
    ...["code-word", "code-text", "code-name"].map((ink) => [ink, "paper"]),
  ])("%s can be read on %s", (ink, ground) => {
    expect(contrast(colour(ink!, look), colour(ground!, look))).toBeGreaterThanOrEqual(4.5);
  });

  it("the edges of what can be used are seen", () => {
    expect(contrast(colour("edge", look), colour("paper", look))).toBeGreaterThanOrEqual(3);
  });

  describe.each(accents)("with %s", (name) => {
    it.each([
      ["honey-text", "paper"],
      ["honey-text", "paper-3"],
      ["ink-2", "honey-soft"],
      ["on-honey", "honey"],
    ])("%s can be read on %s", (ink, ground) => {
      const of = (token: string) => colour(token, token.includes("honey") ? accent(name, look) : look);
      expect(contrast(of(ink!), of(ground!))).toBeGreaterThanOrEqual(4.5);
    });

    it("what is filled stands out from the paper", () => {
      expect(contrast(colour("honey", accent(name, look)), colour("paper", look))).toBeGreaterThanOrEqual(name === "honey" ? 2.3 : 3);
    });
  });
});

const others = import.meta.glob(["./app.css", "./**/*.svelte"], { query: "?raw", import: "default", eager: true });

it.each(Object.entries(others))("%s has no colours of its own", (_, text) => {
  expect(String(text)).not.toMatch(/[\s(]#[0-9a-f]{3,8}\b|rgb\(|hsl\(/i);
});
