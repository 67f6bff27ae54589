import { describe, expect, it } from "vitest";

import { render } from "./markdown";
import { Filled } from "./shape";

/** HTML without the white space between elements, which nobody sees. */
function bare(html: string): string {
  return html.replace(/>\s+</g, "><").trim();
}

const long = {
  "a list": "3. one **bold\n   more**\n4. two\n   - a\n   - b\n     1. c\n\n5. three\n\n   ```js\n   let x;\n   ```\n6. four\n",
  "a list of many": "98. a\n99. b\n100. c\n101. d",
  "a list of tasks": "- [x] one\n- [ ] two $x_1$\n- three",
  "a list that ends": "- one\n- two\nthree\n\n- four\n* other",
  "a table": "| a | b |\n|:-:|---|\n| `x` | 2 |\n| $y|$ | **4** |\n| 5 |\n| 6 | 7 | 8 |",
  "code": "```python\nif a < b:\n    print('&amp;')\n\n\n```",
  "code by indentation": "    a\n    b\n\n    c",
  "nothing of the kind": "# One\n\n> - a\n> - b\n\n1. c",
};

describe("a block that grows", () => {
  it.each(Object.entries(long))("is at every letter what it would be at once: %s", (_, text) => {
    const body = document.createElement("div");
    const filled = new Filled();
    for (let end = 0; end <= text.length; end += 1) {
      filled.fill(body, text.slice(0, end));
      expect(bare(body.innerHTML)).toBe(bare(render(text.slice(0, end))));
    }
  });

  it.each([
    ["li", "- one\n- two\n", "- two\n"],
    ["tbody tr", "| a |\n|---|\n| 1 |\n", "| 2 |\n"],
    ["figure.code", "```js\nlet x;\n", "let y;\n"],
  ])("keeps what does not change: %s", (selector, text, more) => {
    const body = document.createElement("div");
    const filled = new Filled();
    filled.fill(body, text);
    // A rebuilt element would lose this attribute.
    body.querySelector(selector)?.setAttribute("data-kept", "");
    for (let count = 1; count <= 20; count += 1) filled.fill(body, text + more.repeat(count));
    expect(body.querySelector(selector)?.hasAttribute("data-kept")).toBe(true);
    expect(bare(body.innerHTML).replace(' data-kept=""', "")).toBe(bare(render(text + more.repeat(20))));
  });

  it("may also become shorter, or another", () => {
    const body = document.createElement("div");
    const filled = new Filled();
    for (const text of ["- a\n- b\n- c", "- a", "| a |\n|---|\n| 1 |\n| 2 |", "| a |\n|---|\n| 1 |", "| a |\n|---|", "```\nab\n```", "```\na\n```", "1. a\n2. b", "5. a\n6. b", "```js\na\n```", "```ts\na\n```", "| a |\n|---|\n| 1 |\n| 2 |", "| a |\n|:-:|\n| 1 |\n| 2 |", "x", ""]) {
      filled.fill(body, text);
      expect(bare(body.innerHTML)).toBe(bare(render(text)));
    }
  });

  it("is whole again after somebody else has changed it", () => {
    const body = document.createElement("div");
    const filled = new Filled();
    filled.fill(body, "```js\nlet x");
    body.querySelector("code")!.innerHTML = "let <b>x</b>";
    filled.fill(body, "```js\nlet x = 1");
    expect(bare(body.innerHTML)).toBe(bare(render("```js\nlet x = 1")));
    filled.fill(body, "- a\n- b");
    body.querySelector("li")!.remove();
    filled.fill(body, "- a\n- b\n- c");
    expect(bare(body.innerHTML)).toBe(bare(render("- a\n- b\n- c")));
  });
});
