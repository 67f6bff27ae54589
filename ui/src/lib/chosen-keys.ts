/** Shortcuts that a person chooses by pressing them: how the app is told of them, and how they are shown. */

import { mac } from "./keys";

/** Keys that only go with others. */
const HELD = /^(?:Control|Shift|Alt|Meta|OS|Super|Hyper|AltGraph|CapsLock|NumLock|Fn)$/;

/** The keys pressed, such as `CmdOrCtrl+Shift+Space`; null while only keys like Ctrl are held. */
export function chosenKeys(event: KeyboardEvent): string | null {
  if (HELD.test(event.key) || !event.code) return null;
  const held = [
    (mac() ? event.metaKey : event.ctrlKey) && "CmdOrCtrl",
    mac() && event.ctrlKey && "Ctrl",
    event.altKey && "Alt",
    event.shiftKey && "Shift",
    !mac() && event.metaKey && "Super",
  ];
  const key = event.code.replace(/^(?:Key|Digit)(?=.$)/, "");
  return [...held.filter((name) => name), key].join("+");
}

const SYMBOLS: Record<string, string> = { CmdOrCtrl: "⌘", Ctrl: "⌃", Alt: "⌥", Shift: "⇧" };

/** The same as keyboards have it: "Ctrl+Shift+Space", or "⌘⇧Space" on a Mac. */
export function shownKeys(chosen: string): string {
  const names = chosen.split("+").map((name) => name.replace(/^Arrow/, ""));
  if (mac()) return names.map((name) => SYMBOLS[name] ?? name).join("");
  return names.map((name) => (name === "CmdOrCtrl" ? "Ctrl" : name)).join("+");
}
