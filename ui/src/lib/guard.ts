/** Keeps a window at its page: links ask instead of leading away, and nothing that is dropped or pressed replaces it. */

import { command, mac } from "./keys";
import { links } from "./links.svelte";

/** The link around a place of the page, also within a drawing. */
export function linkAt(place: EventTarget | null): Element | undefined {
  const element = place instanceof Element ? place : place instanceof Node ? place.parentElement : null;
  return element?.closest("a, area") ?? undefined;
}

/** Where a link leads. */
export function target(link: Element): string {
  return link.getAttribute("href") ?? link.getAttribute("xlink:href") ?? "";
}

/** A place that takes text. */
export function editable(place: EventTarget | null): place is HTMLElement {
  if (!(place instanceof HTMLElement)) return false;
  if (place instanceof HTMLInputElement) return !/^(?:button|checkbox|color|file|image|radio|range|reset|submit)$/.test(place.type);
  return place instanceof HTMLTextAreaElement || place.isContentEditable;
}

/** Left, middle and modified clicks, and Enter. A right click has its menu; the side buttons would go back and forth. */
function clicked(event: MouseEvent): void {
  if (event.button > 2) event.preventDefault();
  const link = linkAt(event.target);
  if (!link) return;
  event.preventDefault();
  if (event.button < 2) links.ask(target(link), link.textContent);
}

function pressed(event: MouseEvent): void {
  if (event.button > 2) event.preventDefault();
}

function dragged(event: DragEvent): void {
  if (linkAt(event.target)) event.preventDefault();
}

/** Only text may be dropped, and only where text is written. Whoever takes files has handled the event before. */
function dropped(event: DragEvent): void {
  const kinds = event.dataTransfer?.types ?? [];
  const text = kinds.includes("text/plain") && !kinds.includes("Files") && !kinds.includes("text/uri-list");
  if (event.defaultPrevented || (text && editable(event.target))) return;
  event.preventDefault();
  if (event.dataTransfer) event.dataTransfer.dropEffect = "none";
}

/** Keys with which a browser reloads a page, or leaves it. */
function keyed(event: KeyboardEvent): void {
  const reload = event.key === "F5" || (command(event) && event.key.toLowerCase() === "r");
  const sideways = event.key === "ArrowLeft" || event.key === "ArrowRight";
  const left = /^Browser/.test(event.key) || (mac() ? command(event) && /^[[\]]$/.test(event.key) : event.altKey && sideways);
  if (reload || left) event.preventDefault();
}

function sent(event: SubmitEvent): void {
  event.preventDefault();
}

/** Guards the page until the returned function is called. */
export function guard(): () => void {
  const stop = new AbortController();
  const first = { capture: true, signal: stop.signal };
  document.addEventListener("click", clicked, first);
  document.addEventListener("auxclick", clicked, first);
  document.addEventListener("mousedown", pressed, first);
  document.addEventListener("mouseup", pressed, first);
  document.addEventListener("dragstart", dragged, first);
  document.addEventListener("keydown", keyed, first);
  // After everybody else.
  window.addEventListener("dragover", dropped, { signal: stop.signal });
  window.addEventListener("drop", dropped, { signal: stop.signal });
  window.addEventListener("submit", sent, { signal: stop.signal });
  return () => stop.abort();
}
