import { describe, expect, it } from "vitest";

import { latex } from "./formula";
import { blocks, render } from "./markdown";
import { typeset } from "./typeset";

function page(text: string): HTMLElement {
  const body = document.createElement("div");
  body.innerHTML = render(text);
  return body;
}

/** The formulas of a text, as LaTeX; those with lines of their own in brackets. */
function found(text: string): string[] {
  return [...page(text).querySelectorAll(".math")].map((place) => {
    const source = latex(place.textContent);
    return place.classList.contains("display") ? `[${source.trim()}]` : source;
  });
}

describe("a formula", () => {
  it.each([
    ["so \\(a^2\\) is", ["a^2"]],
    ["so $a^2$ is", ["a^2"]],
    ["$x$-axis, ($y$), and $z$.", ["x", "y", "z"]],
    ["$3 + 4$ or $2x$ or $20$", ["3 + 4", "2x", "20"]],
    ["\\[\na\n= b\n- c\n\\]", ["[a\n= b\n- c]"]],
    ["so\n\\[ a \\]\nthen\n$$\nb\n$$\nend", ["[a]", "[b]"]],
    ["inside \\[ a \\] and $$b$$ of text", ["[a]", "[b]"]],
    ["\\begin{align}\na &= b \\\\\n+ c\n\\end{align}", ["[\\begin{align}\na &= b \\\\\n+ c\n\\end{align}]"]],
    ["1. first\n   \\[\n   a\n   \\]\n2. second $b$", ["[a]", "b"]],
    ["| a |\n|---|\n| $x_1$ |", ["x_1"]],
    ["**so $a*b$ and $c*d$**", ["a*b", "c*d"]],
    ["$a_1$ _and_ $b_1$ and $x*y$ *or* $z*w$", ["a_1", "b_1", "x*y", "z*w"]],
    ["\\(\\text{if } x \\le \\{1, 2\\}\\)", ["\\text{if } x \\le \\{1, 2\\}"]],
    ["\\(a\\,b\\) and \\(a < b & c\\)", ["a\\,b", "a < b & c"]],
  ])("is found: %j", (text, formulas) => {
    expect(found(text)).toEqual(formulas);
  });

  it.each([
    "It costs $5 and $6.",
    "It costs $5 (was 10$).",
    "US$5 and A$6, 5$ or 10$",
    "a $20 bill and a 30$ one",
    "$5/$6, $5-$10, $1,000 to $2,000",
    "$HOME/$USER and ${PATH} and $HOME",
    "\\$a^2\\$",
    "`$a^2$` and `\\(b\\)` and ``$$c$$``",
    "$5 and `x$`",
    "```\n$$\na\n$$\n\\[ b \\]\n```",
    "    $$a$$\n    \\[ b \\]",
    "\\\\(a\\\\)",
    "\\(\\) and $$$$ and $ $",
    "\\( a\n\nb \\)",
    "open \\( a and $x",
  ])("is not: %j", (text) => {
    expect(found(text)).toEqual([]);
  });

  it("keeps emphasis around it", () => {
    const body = page("*a $x*y$ `$` b* and **c**");
    expect(body.querySelector("em")?.textContent).toBe("a $x*y$ $ b");
    expect(body.querySelector("strong")?.textContent).toBe("c");
  });

  it("shows its source while it grows, and is no list or heading meanwhile", () => {
    const text = "so\n\\[\na\n= b\n- c\n# d\n\\]\n\nend";
    let grown: string[] = [];
    for (let end = 1; end <= text.length; end += 1) {
      grown = blocks(text.slice(0, end), grown);
      expect(grown.join("")).toBe(text.slice(0, end));
      expect(page(grown.join("")).querySelector("h1, h2, ul, li")).toBeNull();
    }
    expect(found(text)).toEqual(["[a\n= b\n- c\n# d]"]);
    expect(page("so\n\\[\na\n= b\n- c").textContent).toContain("\\[\na\n= b\n- c");
  });

  it.each([
    ["dollars", "$a ", 20_000],
    ["brackets", "\\(", 20_000],
    ["blocks", "\\[\n", 20_000],
    ["environments", "\\begin{align}\n", 5_000],
    ["paragraphs", "a\n$$\n\n", 5_000],
    ["backticks", "$`", 10_000],
  ])("costs no more than in proportion: a text of nothing but %s", (_, piece, count) => {
    const least = (text: string): number => {
      const times = [1, 2, 3].map(() => {
        const begun = performance.now();
        blocks(text);
        return performance.now() - begun;
      });
      return Math.min(...times);
    };
    const [part, whole] = [least(piece.repeat(count / 4)), least(piece.repeat(count))];
    // Four times the text takes four times as long; sixteen times would be the square. What is over at once has no measure.
    expect(whole < 100 || whole / part < 11, `${whole} ms, a quarter of it ${part} ms`).toBe(true);
  });
});

describe("typesetting", () => {
  it("draws what KaTeX can read, and has MathML for screen readers", () => {
    const body = document.createElement("div");
    body.innerHTML = typeset("\\frac{a}{b}", true) ?? "";
    expect(body.querySelector("math mfrac")).not.toBeNull();
    expect(body.querySelector(".katex-display .katex-html")?.ariaHidden ?? body.querySelector(".katex-html")?.getAttribute("aria-hidden")).toBe("true");
    // The source is there once for reading, not a second time as an annotation.
    expect(body.textContent).not.toContain("\\frac");
  });

  it.each([
    "\\unknown{x}",
    "\\frac{a",
    "\\href{https://example.invalid}{x}",
    "\\href{javascript:alert(1)}{x}",
    "\\url{https://example.invalid}",
    "\\includegraphics{https://example.invalid/x.png}",
    "\\htmlClass{cell}{x}",
    "\\htmlId{app}{x}",
    "\\htmlStyle{position:fixed}{x}",
    "\\htmlData{a=b}{x}",
    "\\def\\a{\\a\\a}\\a",
    "\\color{red;position:fixed}x",
  ])("leaves alone what it cannot or may not read: %s", (text) => {
    expect(typeset(text, false)).toBeUndefined();
  });

  it.each(["\\text{<img src=x onerror=alert(1)>}", "x<script>alert(1)</script>", "\\text{<a href='https://example.invalid'>x</a>}"])(
    "shows tags as text: %s",
    (text) => {
      const body = document.createElement("div");
      body.innerHTML = typeset(text, false) ?? "";
      expect(body.textContent).not.toBe("");
      expect(body.querySelector("img, script, a, [id], [href], [src]")).toBeNull();
    },
  );

  it("bounds how large a formula is", () => {
    const body = document.createElement("div");
    body.innerHTML = typeset("\\rule{1000em}{1000em}\\kern1000em x", true) ?? "";
    const sizes = [...body.innerHTML.matchAll(/(?:width|height|margin-right):([\d.]+)em/g)].map((match) => Number(match[1]));
    expect(sizes.length).toBeGreaterThan(0);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(50);
  });
});
