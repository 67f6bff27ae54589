/** Typesets the formulas of a block. Until KaTeX has loaded, and where it cannot read one, the source shows. */

import { latex } from "./formula";
import { words } from "./words";

type Library = typeof import("./typeset");

/** Loads when the first formula is shown. Once it is there, nobody sees a source first: no frame comes in between. */
let library: Promise<Library> | undefined;

/** `settled` says that the block grows no more. */
export function addFormulas(body: HTMLElement, settled: boolean): void {
  const places = [...body.querySelectorAll<HTMLElement>(".math")];
  if (places.length === 0) return;
  library ??= import("./typeset");
  void library.then((loaded) => show(places, loaded, settled));
}

function show(places: HTMLElement[], { typeset }: Library, settled: boolean): void {
  for (const place of places) {
    const display = place.classList.contains("display");
    const html = place.classList.contains("typeset") ? undefined : typeset(latex(place.textContent), display);
    if (html !== undefined) {
      place.innerHTML = html;
      place.classList.add("typeset");
    }
    // Formulas that are too wide can be scrolled by keys, too.
    if (!display || !settled || place.scrollWidth <= place.clientWidth) continue;
    place.tabIndex = 0;
    place.role = "group";
    place.ariaLabel = words.formula;
  }
}
