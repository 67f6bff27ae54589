/** Where words are in an element. */
import { expect, it } from "vitest";

import { passage } from "./passage";

function within(html: string): HTMLElement {
  const element = document.createElement("div");
  element.innerHTML = html;
  return element;
}

const found = (html: string, words: string): string | undefined => passage(within(html), words)?.toString();

it("words are found in any case, also across elements", () => {
  expect(found("<p>By the <b>Old</b> tram</p>", "old tram")).toBe("Old tram");
  expect(found("<p>one</p><p>two</p>", " TWO ")).toBe("two");
  expect(found("<p>The tram that is old</p>", "old  tram")).toBe("old");
  // A letter whose small form is longer does not move what comes after it.
  expect(found("<p>İİ and Lisbon</p>", "lisbon")).toBe("Lisbon");
});

it("what is not there, and no words at all, are found nowhere", () => {
  expect(found("<p>By the old tram</p>", "train")).toBeUndefined();
  expect(found("<p>By the old tram</p>", "  ")).toBeUndefined();
});
