/** The size of text in all windows, in percent of the usual one. It is remembered. */

import { commands } from "./bindings";
import { inApp } from "./place";

/** Local storage key of the size. */
const KEPT = "text-size";

/** The sizes to choose from. */
export const SIZES = [80, 90, 100, 110, 125, 150, 175, 200] as const;

const USUAL = 100;

/** The offered size that is nearest. */
function nearest(percent: number): number {
  const distance = (size: number) => Math.abs(size - percent);
  return SIZES.reduce<number>((best, size) => (distance(size) < distance(best) ? size : best), USUAL);
}

class TextSize {
  percent = $state(nearest(Number(localStorage.getItem(KEPT) ?? USUAL)));

  /** Sets the size that was remembered. */
  restore(): void {
    if (this.percent !== USUAL) this.#apply();
  }

  set(percent: number): void {
    this.percent = nearest(percent);
    localStorage.setItem(KEPT, String(this.percent));
    this.#apply();
  }

  bigger(): void {
    this.set(SIZES.find((size) => size > this.percent) ?? this.percent);
  }

  smaller(): void {
    this.set(SIZES.filter((size) => size < this.percent).at(-1) ?? this.percent);
  }

  usual(): void {
    this.set(USUAL);
  }

  /** Browsers have a size of their own. */
  #apply(): void {
    if (inApp()) void commands.textSize(this.percent);
  }
}

export const textSize = new TextSize();
