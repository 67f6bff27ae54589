/**
 * Makes a list one Tab stop, however long it is: the arrow keys move in it, and Tab leaves it.
 *
 * `{@attach roving(".title", "li")}` on the list's element: up and down (and left and right, if there are no rows), Home and
 * End move between the items; left and right move between an item and the other buttons of its row. The stop is the item
 * that had the focus last, or the current one (`aria-current`), or the first.
 */

const FOCUSABLE = "a[href], button, input, select, textarea, [tabindex]";

export function roving(item: string, row?: string): (list: HTMLElement) => () => void {
  return (list) => {
    let last: HTMLElement | undefined;

    const items = (): HTMLElement[] => [...list.querySelectorAll<HTMLElement>(item)];
    /** The reachable elements in the row of an element, from left to right. */
    const within = (element: Element): HTMLElement[] =>
      row ? [...(element.closest(row)?.querySelectorAll<HTMLElement>(FOCUSABLE) ?? [])] : [];

    function settle(): void {
      const all = items();
      const stop = (last && all.includes(last) && last) || all.find((one) => one.hasAttribute("aria-current")) || all[0];
      for (const element of list.querySelectorAll<HTMLElement>(FOCUSABLE)) {
        // A field that stands in for an item, as while it is renamed, is reached as usual.
        if (written(element)) continue;
        const wanted = element === stop ? 0 : -1;
        if (element.tabIndex !== wanted) element.tabIndex = wanted;
      }
    }

    function focused(event: FocusEvent): void {
      const at = event.target;
      if (!(at instanceof HTMLElement) || written(at)) return;
      last = items().find((one) => one === at || (row !== undefined && one.closest(row) === at.closest(row)));
      settle();
    }

    function pressed(event: KeyboardEvent): void {
      const at = event.target;
      if (!(at instanceof HTMLElement) || written(at) || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
      const next = to(event.key, at);
      if (!next) return;
      event.preventDefault();
      next.focus();
      next.scrollIntoView?.({ block: "nearest" });
    }

    function to(key: string, at: HTMLElement): HTMLElement | undefined {
      const all = items();
      const here = all.findIndex((one) => one === at || (row !== undefined && one.closest(row) === at.closest(row)));
      if (here < 0) return undefined;
      if (key === "Home") return all[0];
      if (key === "End") return all.at(-1);
      if (key === "ArrowDown" || (!row && key === "ArrowRight")) return all[here + 1];
      if (key === "ArrowUp" || (!row && key === "ArrowLeft")) return here > 0 ? all[here - 1] : undefined;
      const beside = within(at);
      if (key === "ArrowRight") return beside[beside.indexOf(at) + 1];
      if (key === "ArrowLeft") return beside.indexOf(at) > 0 ? beside[beside.indexOf(at) - 1] : undefined;
      return undefined;
    }

    const changes = new MutationObserver(settle);
    changes.observe(list, { childList: true, subtree: true, attributeFilter: ["aria-current"] });
    list.addEventListener("focusin", focused);
    list.addEventListener("keydown", pressed);
    settle();
    return () => {
      changes.disconnect();
      list.removeEventListener("focusin", focused);
      list.removeEventListener("keydown", pressed);
    };
  };
}

function written(element: HTMLElement): boolean {
  return element instanceof HTMLInputElement || element instanceof HTMLTextAreaElement;
}
