/** The owner's settings. Each change is saved at once, one after the other, and none depends on another. */

import { type Change, type Preferences, type Refused, commands } from "./bindings";
import { call, why } from "./call";

export type Name = Change["field"];

/** How long "Saved" is shown. */
const SHOWN_MS = 2000;

class Settings {
  now = $state<Preferences>();
  /** Why a field was refused. */
  refused = $state<Partial<Record<Name, Refused>>>({});
  /** Text that was typed and not saved, which outlives the page. */
  typed = $state<Partial<Record<Name, string>>>({});
  /** The field that was saved just now. */
  saved = $state<Name>();
  problem = $state("");

  #last = Promise.resolve();
  #timer: ReturnType<typeof setTimeout> | undefined;

  async open(): Promise<void> {
    try {
      this.now = await call(commands.preferences());
    } catch (thrown) {
      this.problem = why(thrown);
    }
  }

  /** Saves a change. While its owner still types, a value that is not valid yet is not called wrong. */
  change(change: Change, typing = false): Promise<void> {
    this.#last = this.#last.then(() => this.#save(change, typing));
    return this.#last;
  }

  async reset(): Promise<void> {
    try {
      this.now = await call(commands.resetSettings());
      this.refused = {};
      this.typed = {};
      this.problem = "";
    } catch (thrown) {
      this.problem = why(thrown);
    }
  }

  /** Whether a field takes effect only after a restart. */
  waits(field: Name): boolean {
    return this.now?.restart.some((waiting) => waiting === field) ?? false;
  }

  async #save(change: Change, typing: boolean): Promise<void> {
    this.problem = "";
    try {
      const { preferences, refused } = await call(commands.change(change));
      this.now = preferences;
      if (refused) {
        if (!typing) this.refused[change.field] = refused;
        return;
      }
      delete this.refused[change.field];
      if (this.typed[change.field] === change.value) delete this.typed[change.field];
      this.#say(change.field);
    } catch (thrown) {
      this.problem = why(thrown);
    }
  }

  #say(field: Name): void {
    this.saved = field;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.saved = undefined), SHOWN_MS);
  }
}

export const settings = new Settings();
