/** The window's additions to code blocks: buttons, colours, and diagrams in place of their source. */

import { copy } from "./clipboard";
import { words } from "./words";

/** Longer code is not highlighted, since that would block the window. */
const LONGEST_COLOURED = 50_000;

/** A diagram that is too wide becomes smaller, as long as its words can be read; then it scrolls. */
const SMALLEST_SCALE = 0.6;

function figures(body: HTMLElement): HTMLElement[] {
  return [...body.querySelectorAll<HTMLElement>("figure.code")];
}

function language(figure: HTMLElement): string {
  return figure.querySelector("figcaption span")?.textContent.toLowerCase() ?? "";
}

function button(name: string, act: (button: HTMLButtonElement) => void): HTMLButtonElement {
  const made = document.createElement("button");
  made.textContent = name;
  made.className = "plain";
  made.onclick = () => act(made);
  return made;
}

/** A button that is on or off. */
function toggle(name: string, on: boolean, set: (on: boolean) => void): HTMLButtonElement {
  const made = button(name, () => {
    const now = made.ariaPressed !== "true";
    made.ariaPressed = String(now);
    set(now);
  });
  made.ariaPressed = String(on);
  return made;
}

/**
 * Adds Wrap and Copy where they are not yet. `wrapped` are the places of the blocks whose lines wrap; it outlives the elements, some
 * of which are rebuilt while a text grows.
 */
export function addControls(body: HTMLElement, wrapped: Set<number>): void {
  for (const [place, figure] of figures(body).entries()) {
    if (figure.querySelector("button")) continue;
    figure.classList.toggle("wrapped", wrapped.has(place));
    const wrap = toggle(words.wrap, wrapped.has(place), (on) => {
      figure.classList.toggle("wrapped", on);
      if (on) wrapped.add(place);
      else wrapped.delete(place);
    });
    const copies = button(words.copy, async (pressed) => {
      if (!(await copy(figure.querySelector("code")?.textContent ?? ""))) return;
      pressed.textContent = words.copied;
      setTimeout(() => (pressed.textContent = words.copy), 1500);
    });
    figure.querySelector("figcaption")?.append(wrap, copies);
  }
}

/** Highlights code. */
export async function addColours(body: HTMLElement): Promise<void> {
  for (const figure of figures(body)) {
    const code = figure.querySelector("code");
    const plain = code?.textContent ?? "";
    if (!code || !language(figure) || plain.length > LONGEST_COLOURED) continue;
    const { highlight } = await import("./highlight");
    const colours = highlight(plain, language(figure));
    // The highlighter escapes its input. If the text differs all the same, show the plain text.
    if (colours === undefined || !code.isConnected) continue;
    code.innerHTML = colours;
    if (code.textContent !== plain) code.textContent = plain;
  }
}

/** Shows the diagrams that are written in Mermaid; what cannot be drawn stays code. Returns what stops it. */
export function addDiagrams(body: HTMLElement): (() => void) | undefined {
  const found = figures(body).filter((figure) => language(figure) === "mermaid");
  if (found.length === 0) return undefined;
  const redraw = async () => {
    const { draw } = await import("./diagrams");
    for (const figure of found) {
      const drawing = await draw(figure.querySelector("code")?.textContent ?? "");
      if (drawing && figure.isConnected) show(figure, drawing);
    }
  };
  void redraw();
  // In other colours, when the window changes its own.
  const look = new MutationObserver(() => void redraw());
  look.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme", "data-accent"] });
  return () => look.disconnect();
}

function show(figure: HTMLElement, drawing: import("./diagrams").Drawing): void {
  const code = figure.querySelector("pre");
  let image = figure.querySelector<HTMLImageElement>(".drawing img");
  if (!image) {
    image = document.createElement("img");
    const box = document.createElement("div");
    box.className = "drawing";
    box.role = "group";
    box.ariaLabel = words.diagram;
    box.tabIndex = 0;
    box.append(image);
    code?.before(box);
    const shows = (source: boolean) => {
      box.hidden = source;
      if (code) code.hidden = !source;
    };
    figure.querySelector("figcaption span")?.after(toggle(words.code, false, shows));
    shows(false);
  }
  image.src = drawing.src;
  image.width = Math.ceil(drawing.width);
  image.height = Math.ceil(drawing.height);
  image.style.maxWidth = `max(100%, ${Math.round(drawing.width * SMALLEST_SCALE)}px)`;
  image.alt = words.diagramOf(drawing.kind);
  image.draggable = false;
}
