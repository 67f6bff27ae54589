/**
 * The app's own context menus, in place of the browser's, which would offer to go back, reload and download.
 *
 * A part of a page offers its own entries by its buttons: within an element with `data-menu`, every button with
 * `data-offer` is an entry of that element's menu, under its own name.
 */

import { copy, paste, take } from "./clipboard";
import { editable, linkAt, target } from "./guard";
import { links, read } from "./links.svelte";
import { words } from "./words";

/** An entry, or a line between entries. */
export type Item = { label: string; act: () => unknown; off?: boolean; keys?: string } | null;

type Field = HTMLInputElement | HTMLTextAreaElement;

const isField = (element: Element): element is Field =>
  element instanceof HTMLInputElement || element instanceof HTMLTextAreaElement;

/** The text that is selected around a place. */
function selectedAt(place: Element): string {
  const selection = getSelection();
  const chosen = selection !== null && !selection.isCollapsed && selection.getRangeAt(0).intersectsNode(place);
  return chosen ? selection.toString() : "";
}

function ofField(field: HTMLElement, refused: () => void): Item[] {
  const chosen = isField(field)
    ? field.value.slice(field.selectionStart ?? 0, field.selectionEnd ?? 0)
    : (getSelection()?.toString() ?? "");
  const fixed = isField(field) && (field.readOnly || field.disabled);
  const secret = field instanceof HTMLInputElement && field.type === "password";
  const tell = async (done: Promise<boolean>) => {
    if (!(await done)) refused();
  };
  return [
    { label: words.cut, off: !chosen || fixed || secret, keys: "X", act: () => tell(take("cut", chosen)) },
    { label: words.copy, off: !chosen || secret, keys: "C", act: () => tell(take("copy", chosen)) },
    { label: words.paste, off: fixed, keys: "V", act: () => tell(paste(field)) },
    null,
    {
      label: words.selectAll,
      off: isField(field) && !field.value,
      keys: "A",
      act: () => (isField(field) ? field.select() : getSelection()?.selectAllChildren(field)),
    },
  ];
}

function ofLink(link: Element): Item[] {
  const found = read(target(link), link.textContent);
  if (!found) return [];
  const items: Item[] = [
    { label: words.openLink, act: () => links.ask(found.href, link.textContent) },
    { label: found.mail ? words.copyAddress : words.copyLink, act: () => copy(found.mail ? found.name : found.href) },
  ];
  if (links.trusts(found.site)) items.push({ label: words.askAgain, act: () => links.distrust(found.site) });
  return items;
}

function ofPart(place: Element): Item[] {
  const buttons = place.closest("[data-menu]")?.querySelectorAll<HTMLButtonElement>("button[data-offer]:not(:disabled)") ?? [];
  return [...buttons].map((button) => ({
    label: button.getAttribute("aria-label") ?? button.textContent.trim(),
    act: () => button.click(),
  }));
}

/** The entries of a menu at this place, if there are any. */
export function offers(place: Element, refused: () => void = () => undefined): Item[] {
  const field = place.closest<HTMLElement>("input, textarea, [contenteditable]");
  if (field && editable(field)) return ofField(field, refused);
  const link = linkAt(place);
  const selected = selectedAt(place);
  const parts = [
    link ? ofLink(link) : [],
    selected ? [{ label: words.copy, keys: "C", act: () => take("copy", selected) }] : [],
    ofPart(place),
  ].filter((part) => part.length > 0);
  return parts.flatMap((part, index) => (index > 0 ? [null, ...part] : part));
}

type Open = { items: Item[]; x: number; y: number; byKey: boolean };

class Menu {
  open = $state.raw<Open>();
  /** Whether the last paste was refused, so that only the keys can do it. */
  refused = $state(false);
  #selected: Range[] = [];

  /** Opens the menu of a place. */
  show(place: Element, x: number, y: number, byKey = false): void {
    this.refused = false;
    const items = offers(place, () => (this.refused = true));
    const selection = getSelection();
    this.#selected = Array.from({ length: selection?.rangeCount ?? 0 }, (_, index) => selection!.getRangeAt(index));
    this.open = items.length > 0 ? { items, x, y, byKey } : undefined;
  }

  /** Closes it and restores the selection, since the menu has had the focus. */
  close(): void {
    if (!this.open) return;
    this.open = undefined;
    const at = document.activeElement;
    const selection = getSelection();
    if ((at && isField(at)) || !selection || this.#selected.length === 0) return;
    selection.removeAllRanges();
    for (const range of this.#selected) selection.addRange(range);
  }
}

export const menu = new Menu();

/** Replaces the browser's menus by the app's until the returned function is called. */
export function ownMenus(): () => void {
  const stop = new AbortController();
  const first = { capture: true, signal: stop.signal };
  const byMouse = (event: MouseEvent) => {
    event.preventDefault();
    // A key that opens menus has done so already.
    if (menu.open || !(event.target instanceof Element)) return;
    menu.show(event.target, event.clientX, event.clientY);
  };
  const byKey = (event: KeyboardEvent) => {
    if (event.key !== "ContextMenu" && !(event.key === "F10" && event.shiftKey)) return;
    event.preventDefault();
    const selection = getSelection();
    const at = document.activeElement;
    const chosen = selection && !selection.isCollapsed ? selection.getRangeAt(0) : undefined;
    const place = chosen && !(at && isField(at)) ? chosen.startContainer.parentElement : at;
    if (!place || menu.open) return;
    const box = (place === at ? place : chosen)?.getBoundingClientRect?.() ?? new DOMRect();
    menu.show(place, box.left + 8, Math.min(box.bottom, box.top + 24), true);
  };
  document.addEventListener("contextmenu", byMouse, first);
  document.addEventListener("keydown", byKey, first);
  return () => stop.abort();
}
