/** The theme of the pages: light or dark, as the owner has chosen, or as the system says. */

import type { Look } from "./bindings";

/** Shows this look, and follows the system where the owner has left the choice to it; returns what ends that. */
export function follow(look: Look): () => void {
  const system = window.matchMedia?.("(prefers-color-scheme: dark)");
  const show = () => (document.documentElement.dataset.theme = look === "automatic" ? (system?.matches ? "dark" : "light") : look);
  show();
  system?.addEventListener("change", show);
  return () => system?.removeEventListener("change", show);
}
