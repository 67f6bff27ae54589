import { Marked, type Token } from "marked";
import { describe, expect, it } from "vitest";

import { grownList } from "./long-list";

const marked = new Marked({ gfm: true });

/** The texts that were read, and how. */
function reader() {
  let letters = 0;
  const lex = (text: string): Token[] => {
    letters += text.length;
    return [...marked.lexer(text)];
  };
  return { lex, letters: () => letters };
}

describe("a list that grows", () => {
  it.each([
    "1. one **bold\n   more**\n2. two\n3. three\n4. four\n5. five",
    "- a\n- b\n  - c\n  - d\n- e\n\n  f\n- g\n- h",
    "- a\n\n- b\n\n- c\n\n- d\n\n- e\n\nend of it\n\n- f",
    "- a\n- b\n- c\n\n- d\n- e\n- f",
    "* a\n* b\n* c\n- d\n- e\n- f\n1. g",
    "1. a\n2. b\n3. c\n4) d\n5) e\n6) f",
    " - a\n  - b\n   - c\n    - d\n     - e\n- f\n- g",
    "- [ ] a\n- [x] b\n- [ ] c\n- [x] d",
    "- a\n- b\n- ```\n  c\n  - d\n- e\n- f",
    "- a\n- b\n- c\nlazy\n- d\n# e\n- f",
    "10. a\n11. b\n    c\n12. d\n\n    e\n13. f\n14. g",
    "- a\n- b\n- c\n---\n- d\n- e",
    "- \n- a\n-\n- b\n- c\n-",
  ])("is read as it would be at once: %j", (text) => {
    const { lex } = reader();
    let before: Token[] = [];
    for (let end = 1; end <= text.length; end += 1) {
      const now = text.slice(0, end);
      const whole = lex(now);
      const grown = grownList(before[0], now, lex);
      if (grown) expect(JSON.stringify(grown)).toBe(JSON.stringify(whole));
      before = grown ?? whole;
    }
  });

  it.each(["- item\n", "- item\n\n"])("is read at its end only: %j", (item) => {
    let text = item.repeat(3);
    let before: Token[] = [...marked.lexer(text)];
    const { lex, letters } = reader();
    for (let count = 0; count < 200; count += 1) {
      text += item;
      const grown = grownList(before[0], text, lex);
      expect(grown).toBeDefined();
      before = grown!;
    }
    expect(letters()).toBeLessThan(200 * 4 * item.length);
  });

  it("is not another one", () => {
    const before = marked.lexer("- a\n- b\n- c")[0];
    expect(grownList(before, "- a\n- b\n- c\n- d", reader().lex)).toBeDefined();
    expect(grownList(before, "- x\n- b\n- c\n- d", reader().lex)).toBeUndefined();
    expect(grownList(marked.lexer("a")[0], "a\n- b", reader().lex)).toBeUndefined();
  });
});
