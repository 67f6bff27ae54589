import { describe, expect, it } from "vitest";

import { type Attachment, compose, estimateTokens, parse } from "./attachments";

/** A small generator of numbers, so that a failure can be seen again. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** What a text, a file or a name is made of: whatever could be taken for a part of the format. */
const PIECES = ["`", "``", "```", "````", "file=", "```file=a.txt\n", "````file=", "\n", "\n\n", "\r\n", "\\", "%", "%60", "%0a", " ", "\t", "x", "ü", "𝔘", "日本", "\u202e", "…", "~~~", "\n```", "\n```\n\n", "=", "/", ".."];

describe("a message", () => {
  it("is taken apart into what it was put together from, whatever that is", () => {
    const below = numbers(7);
    const some = (most: number): string => Array.from({ length: below(most) }, () => PIECES[below(PIECES.length)]).join("");
    for (let round = 0; round < 20_000; round++) {
      const files: Attachment[] = Array.from({ length: below(4) }, () => ({ name: some(8), text: some(12) }));
      const text = some(12);
      const whole = compose(text, files);
      expect(parse(whole), JSON.stringify(whole)).toEqual({ text, files });
    }
  });

  it("is the same after its ends were trimmed, as is done when it is sent", () => {
    const files = [{ name: "a.txt", text: "one\n" }];
    expect(parse(compose("", files).trim())).toEqual({ text: "", files });
    expect(parse(compose("  \n", files).trim())).toEqual({ text: "", files });
    const typed = "```file=a.txt\none\n```";
    expect(parse(compose(`\n ${typed}`, []).trim())).toEqual({ text: typed, files: [] });
  });

  it("reads well to a model: a fence that nothing inside ends, the name, the text at last", () => {
    const files = [
      { name: "notes.md", text: "Run:\n```sh\nls\n```" },
      { name: "a\nb`.txt", text: "" },
    ];
    expect(compose("What is it?", files)).toBe(
      "````file=notes.md\nRun:\n```sh\nls\n```\n````\n\n```file=a%0ab%60.txt\n\n```\n\nWhat is it?",
    );
    expect(compose("plain `code` and ```fences```", [])).toBe("plain `code` and ```fences```");
  });

  it("with code that is no file stays text", () => {
    for (const text of ["```python\nx\n```", "```file=a.txt\nwithout an end", "```file=a.txt\nx\n```js\n", "Look:\n```file=a\nx\n```"]) {
      expect(parse(text)).toEqual({ text, files: [] });
    }
  });

  it("of the greatest length is handled between two frames", () => {
    const files = [{ name: "a.txt", text: "`` ``` a line\n".repeat(28_000) }];
    const begun = performance.now();
    expect(parse(compose("And?", files)).text).toBe("And?");
    expect(performance.now() - begun).toBeLessThan(100);
  });
});

describe("tokens", () => {
  it("are about four Latin letters, or one and a half of others", () => {
    expect(estimateTokens("")).toBe(0);
    expect(estimateTokens("Naïve “quotes” – 40 letters in this line.")).toBe(11);
    expect(estimateTokens("éü—ễ".repeat(15))).toBe(15);
    expect(estimateTokens("日本語")).toBe(2);
    expect(estimateTokens("x".repeat(49_380))).toBe(12_000);
  });
});
