import { fireEvent } from "@testing-library/dom";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { guard } from "./guard";
import { links } from "./links.svelte";

let stop = () => {};
let asked: string[] = [];

beforeEach(() => {
  document.body.innerHTML = `<p><a href="https://example.com/a"><b>text</b></a></p>
    <svg><a xlink:href="https://example.com/svg"><text>drawn</text></a></svg>
    <a id="script" href="javascript:alert(1)">x</a><form><button>Send</button></form>
    <textarea></textarea><input type="checkbox" /><p id="plain">words</p>`;
  asked = [];
  vi.spyOn(links, "ask").mockImplementation((link) => void asked.push(link));
  stop = guard();
});

afterEach(() => {
  stop();
  vi.restoreAllMocks();
});

const find = (selector: string): Element => document.querySelector(selector)!;
/** Whether the browser was kept from its own reaction. */
const kept = (event: Event, place: Element = find("b")): boolean => !place.dispatchEvent(event);
const mouse = (kind: string, more: MouseEventInit = {}): MouseEvent =>
  new MouseEvent(kind, { bubbles: true, cancelable: true, ...more });
const key = (name: string, more: KeyboardEventInit = {}): KeyboardEvent =>
  new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true, ...more });

describe("a click on a link", () => {
  it.each([{}, { ctrlKey: true }, { shiftKey: true }, { altKey: true }, { metaKey: true }])("asks: left with %o", (held) => {
    expect(kept(mouse("click", held))).toBe(true);
    expect(asked).toEqual(["https://example.com/a"]);
  });

  it("asks: middle", () => {
    expect(kept(mouse("auxclick", { button: 1 }))).toBe(true);
    expect(asked).toEqual(["https://example.com/a"]);
  });

  it("asks in a drawing, too", () => {
    expect(kept(mouse("click"), find("text"))).toBe(true);
    expect(asked).toEqual(["https://example.com/svg"]);
  });

  it("on the right asks nothing, nor does it lead anywhere", () => {
    expect(kept(mouse("auxclick", { button: 2 }))).toBe(true);
    expect(asked).toEqual([]);
  });

  it("on what is no link does what it always does", () => {
    expect(kept(mouse("click"), find("input"))).toBe(false);
    expect(asked).toEqual([]);
  });
});

describe("nothing leads away:", () => {
  it("the side buttons of a mouse", () => {
    for (const kind of ["mousedown", "mouseup", "auxclick"]) expect(kept(mouse(kind, { button: 3 }), find("#plain")), kind).toBe(true);
    expect(kept(mouse("mousedown", { button: 0 }), find("#plain"))).toBe(false);
  });

  it("keys that reload or go back", () => {
    for (const event of [
      key("F5"),
      key("r", { ctrlKey: true }),
      key("R", { ctrlKey: true, shiftKey: true }),
      key("ArrowLeft", { altKey: true }),
      key("ArrowRight", { altKey: true }),
      key("BrowserBack"),
    ]) {
      expect(kept(event, document.body), event.key).toBe(true);
    }
    for (const event of [key("r"), key("ArrowLeft"), key("c", { ctrlKey: true })]) expect(kept(event, document.body), event.key).toBe(false);
  });

  it("a form", () => {
    expect(kept(new SubmitEvent("submit", { bubbles: true, cancelable: true }), find("form"))).toBe(true);
  });

  it("a link that is dragged", () => {
    const drag = (place: Element) => kept(new Event("dragstart", { bubbles: true, cancelable: true }), place);
    expect(drag(find("b"))).toBe(true);
    expect(drag(find("#plain"))).toBe(false);
  });

  it("what is dropped, but for text where text is written", () => {
    const drop = (types: string[], place: string): boolean => {
      const both = ["dragover", "drop"].map((kind) => {
        const event = new Event(kind, { bubbles: true, cancelable: true });
        Object.assign(event, { dataTransfer: { types, dropEffect: "copy" } });
        return kept(event, find(place));
      });
      expect(both[0]).toBe(both[1]);
      return both[0]!;
    };
    expect(drop(["Files"], "#plain")).toBe(true);
    expect(drop(["text/plain"], "#plain")).toBe(true);
    expect(drop(["text/plain"], "input")).toBe(true);
    expect(drop(["text/plain", "text/uri-list"], "textarea")).toBe(true);
    expect(drop(["Files", "text/plain"], "textarea")).toBe(true);
    expect(drop(["text/plain"], "textarea")).toBe(false);
  });

  it("unless a part of the page takes it", async () => {
    find("#plain").addEventListener("drop", (event) => event.preventDefault());
    const event = new Event("drop", { bubbles: true, cancelable: true });
    Object.assign(event, { dataTransfer: { types: ["Files"], dropEffect: "copy" } });
    await fireEvent(find("#plain"), event);
    expect((event as unknown as DragEvent).dataTransfer?.dropEffect).toBe("copy");
  });
});
