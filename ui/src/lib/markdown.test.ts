import { describe, expect, it } from "vitest";

import { highlight } from "./highlight";
import { blocks, render } from "./markdown";

/** Renders the text and parses the result as a page. */
function page(text: string): HTMLElement {
  const body = document.createElement("div");
  body.innerHTML = render(text);
  return body;
}

describe("an answer", () => {
  it("has tables, lists and code with its language", () => {
    const body = page("| a | b |\n|---|---|\n| 1 | 2 |\n\n```python\nprint(1 < 2)\n```\n\n- one\n- two");
    expect(body.querySelectorAll("td").length).toBe(2);
    expect(body.querySelector("figure.code figcaption")?.textContent).toBe("python");
    expect(body.querySelector("pre code")?.textContent).toBe("print(1 < 2)");
    expect(body.querySelectorAll("li").length).toBe(2);
  });

  it.each([
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)></svg>",
    "<iframe src=https://example.invalid></iframe>",
    "<style>body{display:none}</style>",
    "<a href='javascript:alert(1)'>x</a>",
    "[x](javascript:alert(1))",
    "![x](https://example.invalid/x.png)",
    "```\"><img src=x onerror=alert(1)>\n```",
    "<form action=https://example.invalid><button>x</button></form>",
  ])("does nothing: %s", (text) => {
    const body = page(text);
    expect(body.querySelector("script, img, svg, iframe, style, form, button")).toBeNull();
    for (const element of body.querySelectorAll("*")) {
      for (const { name, value } of element.attributes) {
        expect(name.startsWith("on") || /^\s*javascript:/i.test(value)).toBe(false);
      }
    }
  });

  it("in blocks reads as the whole, however it grew", () => {
    const text = "# One\n\ntwo **three**\r\nfour\n\n- a\n\n- b\n  - c\n\n```js\nlet x = 1;\n\nlet y;\n```\n\n| a |\n|---|\n| 1 |\n\n> q\n\nend";
    let grown: string[] = [];
    for (let end = 1; end <= text.length; end += 1) {
      grown = blocks(text.slice(0, end), grown);
      expect(grown.join("")).toBe(text.slice(0, end).replaceAll("\r\n", "\n"));
    }
    expect(grown).toEqual(blocks(text));
    const words = (html: string) => html.replace(/\s+/g, "");
    expect(words(grown.map(render).join(""))).toBe(words(render(text)));
    expect(grown.length).toBe(7);
  });

  it("has colours in its code, and still the same text", () => {
    const code = 'if a < b: print("<script>")';
    const body = document.createElement("div");
    body.innerHTML = highlight(code, "python") ?? "";
    expect(body.textContent).toBe(code);
    expect(body.querySelector(".hljs-keyword")?.textContent).toBe("if");
    expect(body.querySelector("script")).toBeNull();
    expect(highlight(code, "no language")).toBeUndefined();
  });

  it.each([
    ["quotes", ">".repeat(20_000)],
    ["lists", "- ".repeat(20_000)],
    ["brackets", "[".repeat(20_000)],
    ["stars", "*a ".repeat(20_000)],
  ])("of nothing but %s is text at last", (_, text) => {
    expect(page(text).textContent?.length).toBeGreaterThan(0);
  });
});
