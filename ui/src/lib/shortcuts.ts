/** All shortcuts: one table, from which the keys are handled and the list of them is drawn. */

import { command, composing, mac } from "./keys";
import { words } from "./words";

type Key = {
  key: string;
  /** Other names of the key, with Shift or on other keyboards. */
  also?: string[];
  command?: true;
  shift?: true;
};

const com = (key: string, ...also: string[]): Key => ({ key, also, command: true });

type Row = {
  name: string;
  group: "pages" | "chats" | "message" | "text" | "window";
  keys: Key[];
  /** Where a part of a page handles the key itself. */
  own?: true;
  /** Also while a dialog is open. */
  always?: true;
  /** On a Mac, the menu bar handles it. */
  menuBar?: true;
};

export const shortcuts = [
  { name: "chat", group: "pages", keys: [com("1")] },
  { name: "machines", group: "pages", keys: [com("2")] },
  { name: "models", group: "pages", keys: [com("3")] },
  { name: "settings", group: "pages", keys: [com("4"), com(",")] },
  { name: "newChat", group: "chats", keys: [com("n")] },
  { name: "search", group: "chats", keys: [com("f")] },
  { name: "jump", group: "chats", keys: [com("k")] },
  { name: "send", group: "message", keys: [{ key: "Enter" }], own: true },
  { name: "line", group: "message", keys: [{ key: "Enter", shift: true }], own: true },
  { name: "stop", group: "message", keys: [{ key: "Escape" }], own: true },
  { name: "bigger", group: "text", keys: [com("+", "=")], always: true },
  { name: "smaller", group: "text", keys: [com("-", "_")], always: true },
  { name: "usual", group: "text", keys: [com("0")], always: true },
  { name: "menu", group: "window", keys: [{ key: "F10", shift: true }], own: true },
  { name: "list", group: "window", keys: [com("/")] },
  { name: "hide", group: "window", keys: [com("w")], always: true, menuBar: true },
  { name: "quit", group: "window", keys: [com("q")], always: true, menuBar: true },
] as const satisfies Row[];

export type Name = (typeof shortcuts)[number]["name"];
type Own = Extract<(typeof shortcuts)[number], { own: true }>["name"];
/** What each shortcut does, but for those that parts of a page handle. */
export type Acts = Record<Exclude<Name, Own>, () => void>;

function pressed(event: KeyboardEvent, { key, also }: Key): boolean {
  if (/^[a-z]$/.test(key)) {
    // On a keyboard without Latin letters, the key at the same place.
    const latin = /^[a-z]$/i.test(event.key);
    return !event.shiftKey && (latin ? event.key.toLowerCase() === key : event.code === `Key${key.toUpperCase()}`);
  }
  // Digits need Shift on some keyboards, signs on others.
  return event.key === key || (also?.includes(event.key) ?? false) || (/\d/.test(key) && event.code === `Digit${key}`);
}

/** The shortcut that was pressed. */
export function find(event: KeyboardEvent): Row | undefined {
  if (composing(event) || event.defaultPrevented || !command(event)) return undefined;
  const rows: readonly Row[] = shortcuts;
  return rows.find(({ keys, own, menuBar }) => !own && !(menuBar && mac()) && keys.some((key) => pressed(event, key)));
}

/** Does what was pressed. */
export function handle(event: KeyboardEvent, acts: Acts): void {
  const row = find(event);
  if (!row) return;
  event.preventDefault();
  if (row.always || !document.querySelector("dialog[open]")) acts[row.name as keyof Acts]();
}

const NAMES: Record<string, string> = { Enter: "↵", Escape: "Esc", "-": "−" };

/** A key as it is written: "Ctrl+N", or "⌘N" on a Mac. */
export function written({ key, command, shift }: Key): string {
  const cap = NAMES[key] ?? (key.length === 1 ? key.toUpperCase() : key);
  if (mac()) return `${shift ? "⇧" : ""}${command ? "⌘" : ""}${cap}`;
  return `${command ? `${words.control}+` : ""}${shift ? `${words.shift}+` : ""}${cap}`;
}

/** A key as assistive technology names it. */
export function spelled({ key, command, shift }: Key): string {
  return `${command ? (mac() ? "Meta+" : "Control+") : ""}${shift ? "Shift+" : ""}${key.length === 1 ? key.toUpperCase() : key}`;
}

/** The keys of a shortcut, as they are written. */
export function keysOf(name: Name): string[] {
  const rows: readonly Row[] = shortcuts;
  return rows.find((row) => row.name === name)?.keys.map(written) ?? [];
}
