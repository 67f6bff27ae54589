/** The open invitation. It is made once and shown until a machine has joined or it is about to expire. */

import { node } from "./node";

/** An hour less than the node accepts it. */
const VALID_MS = 23 * 3_600_000;

type Made = { text: Promise<string>; at: number; known: Set<string> };

class Invitation {
  #made = $state.raw<Made>();

  /** Whether there is one that still works; `machines` are those that are approved now. */
  isOpen(machines: string[]): boolean {
    const made = this.#made;
    return made !== undefined && Date.now() - made.at < VALID_MS && machines.every((id) => made.known.has(id));
  }

  /** The open invitation, or a new one. */
  text(machines: string[]): Promise<string> {
    if (this.#made && this.isOpen(machines)) return this.#made.text;
    const text = node.invite();
    this.#made = { text, at: Date.now(), known: new Set(machines) };
    text.catch(() => this.forget());
    return text;
  }

  forget(): void {
    this.#made = undefined;
  }
}

export const invitation = new Invitation();
