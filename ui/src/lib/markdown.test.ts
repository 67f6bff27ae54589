import { describe, expect, it } from "vitest";

import { highlight } from "./highlight";
import { blocks, render } from "./markdown";
import { words } from "./words";

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

  it("counts its lists as they are written", () => {
    const numbers = (text: string) => [...page(text).querySelectorAll("ol")].map((list) => list.start);
    expect(numbers("3. a\n4. b\n\n```\ncode\n```\n\n5. c")).toEqual([3, 5]);
    expect(numbers("1. a\n\n   ```\n   code\n   ```\n2. b")).toEqual([1]);
    expect(numbers("0. a\n1. b")).toEqual([0]);
    expect(numbers("7) a\n   1. b")).toEqual([7, 1]);
  });

  it("makes room for long numbers", () => {
    const classes = ["9. a", "98. a\n99. b", "98. a\n99. b\n100. c", "123456789. a", "- a"].map((text) => page(text).firstElementChild?.className);
    expect(classes).toEqual(["", "", "wide", "wider", ""]);
  });

  it.each(["- [x] a\n- [ ] b", "- [x] a\n\n- [ ] b"])("has boxes for tasks, with names, that nobody can tick: %j", (text) => {
    const boxes = [...page(text).querySelectorAll("input")];
    expect(boxes.map((box) => [box.type, box.checked, box.disabled, box.ariaLabel ?? box.getAttribute("aria-label")])).toEqual([
      ["checkbox", true, true, words.done],
      ["checkbox", false, true, words.notDone],
    ]);
  });

  it("aligns the columns of a table, which scrolls and has a name", () => {
    const body = page("| a | b | c | d |\n|:--|:-:|--:|---|\n| 1 | 2 | 3 | 4 |");
    const sides = ["left", "center", "right", null];
    expect([...body.querySelectorAll("th")].map((cell) => cell.getAttribute("align"))).toEqual(sides);
    expect([...body.querySelectorAll("td")].map((cell) => cell.getAttribute("align"))).toEqual(sides);
    const scroller = body.querySelector("table")?.parentElement;
    expect([scroller?.getAttribute("role"), scroller?.getAttribute("aria-label"), scroller?.tabIndex]).toEqual(["region", words.table, 0]);
  });

  it("has no bar on code without a language", () => {
    expect(page("```\na\n```").querySelector("figure")?.classList.contains("nameless")).toBe(true);
    expect(page("```js\na\n```").querySelector("figure")?.classList.contains("nameless")).toBe(false);
  });

  it("keeps long lines of marks as they are", () => {
    const line = "-".repeat(60);
    expect(page(`\`\`\`\n${line}\n\`\`\``).querySelector("code")?.textContent).toBe(line);
    expect(page(`a\n\n${line}\n\nb`).querySelector("hr")).not.toBeNull();
  });

  it("keeps the definition of a link readable, since blocks are rendered one by one", () => {
    expect(page("[1]: https://example.com/a").textContent).toContain("https://example.com/a");
  });

  it("shows a picture as a link with its text, also inside of a link", () => {
    const links = (text: string) => [...page(text).querySelectorAll("a")].map((link) => [link.textContent, link.getAttribute("href")]);
    expect(links("![a cat](https://example.com/x.png)")).toEqual([["a cat", "https://example.com/x.png"]]);
    expect(links("![](https://example.com/x.png)")).toEqual([["https://example.com/x.png", "https://example.com/x.png"]]);
    expect(links("[![a cat](https://a.example/x.png) here](https://b.example/)")).toEqual([["a cat here", "https://b.example/"]]);
    expect(links("![a cat](data:image/png;base64,AAAA)")).toEqual([["a cat", null]]);
  });

  it("breaks lines and raises letters by the plain tags for that, and shows all others as text", () => {
    const body = page("| a |\n|---|\n| x<br>y<BR/>z H<sub>2</sub>O x<sup>2</sup> <kbd>Esc</kbd> <b>b</b> |");
    expect(body.querySelector("td")?.innerHTML).toBe(
      "x<br>y<br>z H<sub>2</sub>O x<sup>2</sup> <kbd>Esc</kbd> &lt;b&gt;b&lt;/b&gt;",
    );
    expect(page("<sub>never closed\n\nnext").querySelector("p:last-child sub")).toBeNull();
  });

  it("says where a link leads before it is clicked", () => {
    expect(page('[x](https://example.com/a "https://bank.example")').querySelector("a")?.title).toBe("https://example.com/a");
  });

  /** What an answer may consist of. Nothing else is ever made. */
  const TAGS = /^(?:P|BR|HR|EM|STRONG|DEL|CODE|PRE|BLOCKQUOTE|UL|OL|LI|A|FIGURE|FIGCAPTION|SPAN|DIV|H[1-6]|TABLE|THEAD|TBODY|TR|TH|TD|INPUT|KBD|MARK|SUB|SUP)$/;
  const ATTRIBUTES = /^(?:href|title|class|start|align|type|checked|disabled|role|aria-label|tabindex)$/;
  const CLASSES = /^(?:|code|code nameless|math|math display|begun|wide|wider)$/;

  it.each([
    "<br onclick=alert(1)> <sub style='position:fixed'>x</sub> <kbd id=app>x</kbd> <mark/onclick=alert(1)>x",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<IMG SRC=x OnErRoR=alert(1)>",
    "<svg onload=alert(1)></svg>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><a xlink:href='javascript:alert(1)'><text>x</text></a></svg>",
    "<svg><foreignObject><iframe src=https://example.invalid></foreignObject></svg>",
    "<svg><use href='https://example.invalid/x.svg#a'/></svg>",
    "<math><mtext><style><img src=x onerror=alert(1)></style></mtext></math>",
    "<math href='javascript:alert(1)'>x</math>",
    "<iframe src=https://example.invalid></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data=https://example.invalid></object><embed src=https://example.invalid>",
    "<style>body{display:none}</style>",
    "<link rel=stylesheet href=https://example.invalid/x.css>",
    "<base href=https://example.invalid/>",
    "<meta http-equiv=refresh content='0;url=https://example.invalid'>",
    "<video src=https://example.invalid autoplay></video><audio src=https://example.invalid></audio>",
    "<picture><source srcset=https://example.invalid></picture>",
    "<form action=https://example.invalid><button>x</button></form>",
    "<input autofocus onfocus=alert(1)><textarea></textarea><select></select>",
    "<details open ontoggle=alert(1)>x</details>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href=https://example.invalid ping=https://example.invalid download target=_top>x</a>",
    "<p id=app class=begun style='position:fixed;inset:0' name=body>x</p>",
    "<form id=document><input name=cookie></form>",
    "<template><script>alert(1)</script></template><noscript><img src=x></noscript>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<img src=x onerror=alert(1)>]]>",
    "<?xml-stylesheet href='https://example.invalid'?>",
    "<x-custom onclick=alert(1)>x</x-custom>",
    "<div\n\nonclick=alert(1)>x",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java&#115;cript:alert(1))",
    "[x](java&Tab;script:alert(1))",
    "[x](&#x6A;avascript:alert(1))",
    "[x](<java\tscript:alert(1)>)",
    "[x](\u0001javascript:alert(1))",
    "[x](%6Aavascript:alert(1))",
    "[x](javascript&colon;alert(1))",
    "[x](vbscript:msgbox(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](file:///etc/passwd)",
    "[x](tauri://localhost/index.html)",
    "[x](ipc://localhost/quit)",
    "[x](blob:https://example.invalid/1)",
    "[x](about:srcdoc)",
    "[x](//example.invalid/x)",
    "[x](/index.html#popover)",
    "[x](#app)",
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)\n\n[x]",
    "[x](https://example.invalid/\"onmouseover=alert(1)//)",
    '[x](https://example.invalid "\" onmouseover=alert(1) x=\"")',
    "![x](https://example.invalid/x.png)",
    "![x](javascript:alert(1))",
    "![\"onerror=alert(1) x=\"](https://example.invalid/x.png)",
    "![<img src=x onerror=alert(1)>](https://example.invalid)",
    "```\"><img src=x onerror=alert(1)>\n```",
    "```<script>alert(1)</script>\nx\n```",
    "```html\n<script>alert(1)</script>\n</code></pre><img src=x onerror=alert(1)>\n```",
    "```mermaid\ngraph LR\n  A --> B\n  click A \"javascript:alert(1)\"\n  click B call alert(1)\n```",
    "`</code><img src=x onerror=alert(1)>`",
    "| <img src=x onerror=alert(1)> |\n|:-\"onclick=alert(1)-:|\n| x |",
    "- [x] <input type=text>\n- [ ] <input type=file>",
    "$x^2<img src=x onerror=alert(1)>$",
    "\\(</span><img src=x onerror=alert(1)>\\)",
    "$$\n</div><script>alert(1)</script>\n$$",
    "\\[\n<img src=x onerror=alert(1)>",
    "\\(\\href{javascript:alert(1)}{x}\\) \\(\\includegraphics{https://example.invalid}\\) \\(\\htmlClass{cell}{x}\\)",
    "# <img src=x onerror=alert(1)>\n> <svg onload=alert(1)>",
  ])("does nothing: %s", (text) => {
    const inBlocks = document.createElement("div");
    inBlocks.innerHTML = blocks(text).map(render).join("");
    for (const body of [page(text), inBlocks]) {
      for (const element of body.querySelectorAll("*")) {
        expect(element.tagName).toMatch(TAGS);
        expect(element.className).toMatch(CLASSES);
        for (const { name } of element.attributes) expect(name).toMatch(ATTRIBUTES);
        if (element instanceof HTMLInputElement) expect([element.type, element.disabled]).toEqual(["checkbox", true]);
        const to = element.getAttribute("href");
        if (to !== null) expect(to).toMatch(/^(?:https?|mailto):/);
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

  it.each(["js", "tsx", "py", "sh", "console", "yml", "toml", "rs", "c++", "cs", "html", "md", "docker", "ps1", "objc"])(
    "has colours in code that calls itself %s",
    (name) => expect(highlight("x", name)).toBeDefined(),
  );

  it.each([
    ["quotes", ">".repeat(20_000)],
    ["lists", "- ".repeat(20_000)],
    ["brackets", "[".repeat(20_000)],
    ["stars", "*a ".repeat(20_000)],
    ["numbers", "1. ".repeat(20_000)],
    ["links", "[a](".repeat(10_000)],
  ])("of nothing but %s is text at last", (_, text) => {
    expect(page(text).textContent?.length).toBeGreaterThan(0);
  });
});
