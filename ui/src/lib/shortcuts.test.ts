import { afterEach, describe, expect, it, vi } from "vitest";

import { type Acts, find, handle, keysOf, shortcuts } from "./shortcuts";

const MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15";

const onAMac = (): void => void vi.spyOn(navigator, "userAgent", "get").mockReturnValue(MAC);
const press = (key: string, more: KeyboardEventInit = {}): KeyboardEvent =>
  new KeyboardEvent("keydown", { key, ctrlKey: true, cancelable: true, ...more });
const name = (key: string, more: KeyboardEventInit = {}): string | undefined => find(press(key, more))?.name;

afterEach(() => {
  vi.restoreAllMocks();
  document.body.innerHTML = "";
});

describe("shortcuts", () => {
  it("are found by their keys", () => {
    const keys = ["1", "2", "3", "4", ",", "n", "f", "+", "=", "-", "0", "/", "w", "q"];
    expect(keys.map((key) => name(key))).toEqual([
      ...["chat", "machines", "models", "settings", "settings", "newChat", "search", "bigger", "bigger", "smaller", "usual"],
      ...["list", "hide", "quit"],
    ]);
  });

  it("never fire while a word is composed", () => {
    expect(name("n", { isComposing: true })).toBeUndefined();
    expect(name("n", { keyCode: 229 })).toBeUndefined();
  });

  it("need their key alone", () => {
    for (const more of [{ ctrlKey: false }, { altKey: true }, { metaKey: true }, { shiftKey: true }, { ctrlKey: false, metaKey: true }]) {
      expect(name("n", more), JSON.stringify(more)).toBeUndefined();
    }
    const used = press("n");
    used.preventDefault();
    expect(find(used)).toBeUndefined();
  });

  it("are at the same place on other keyboards", () => {
    // German: "/" with Shift. French: digits with Shift. Russian: no Latin letters.
    expect(name("/", { shiftKey: true, code: "Digit7" })).toBe("list");
    expect(name("&", { code: "Digit1" })).toBe("chat");
    expect(name("т", { code: "KeyN" })).toBe("newChat");
    // Dvorak: the letter counts, not its place.
    expect(name("b", { code: "KeyN" })).toBeUndefined();
  });

  it("are ⌘ on a Mac, whose menu bar has some", () => {
    onAMac();
    expect(name("n", { ctrlKey: false, metaKey: true })).toBe("newChat");
    // Ctrl+N, F and K move the insertion point there.
    expect(name("n")).toBeUndefined();
    expect(name("q", { ctrlKey: false, metaKey: true })).toBeUndefined();
    expect([keysOf("newChat"), keysOf("settings"), keysOf("menu")]).toEqual([["⌘N"], ["⌘4", "⌘,"], ["⇧F10"]]);
  });

  it("are written as people know them", () => {
    expect([keysOf("newChat"), keysOf("smaller"), keysOf("line")]).toEqual([["Ctrl+N"], ["Ctrl+−"], ["Shift+↵"]]);
  });

  it("are each one key, and no key is two", () => {
    const written = shortcuts.flatMap((row) => keysOf(row.name));
    expect(new Set(written).size).toBe(written.length);
    expect(new Set(shortcuts.map((row) => row.name)).size).toBe(shortcuts.length);
  });

  it("do what they say, and behind a dialog only what concerns the window", () => {
    const done: string[] = [];
    const acts = new Proxy({}, { get: (_, act: string) => () => done.push(act) }) as Acts;
    const event = press("2");
    handle(event, acts);
    expect([done, event.defaultPrevented]).toEqual([["machines"], true]);
    const dialog = document.createElement("dialog");
    dialog.setAttribute("open", "");
    document.body.append(dialog);
    handle(press("3"), acts);
    handle(press("+"), acts);
    handle(press("q"), acts);
    expect(done).toEqual(["machines", "bigger", "quit"]);
    handle(press("x"), acts);
    expect(done.length).toBe(3);
  });
});
