/** The models on this machine, for the model picker and the Models page. */

import { type OnDisk, commands } from "./bindings";
import { call, why } from "./call";

class Library {
  /** The models that can be used. */
  models = $state<OnDisk[]>([]);
  /** The models that cannot. */
  unusable = $state<OnDisk[]>([]);
  /** Whether the list was read. */
  read = $state(false);
  /** The operation in progress on each model, by name. */
  busy = $state<Record<string, "load" | "unload" | "remove" | undefined>>({});
  problem = $state("");

  async refresh(): Promise<void> {
    try {
      const all = await call(commands.listModels());
      this.models = all.filter((model) => !model.unusable);
      this.unusable = all.filter((model) => model.unusable);
      this.read = true;
    } catch (thrown) {
      this.problem = why(thrown);
    }
  }

  load(name: string): Promise<void> {
    return this.#change(name, "load", () => commands.loadModel(name));
  }

  unload(name: string): Promise<void> {
    return this.#change(name, "unload", () => commands.unloadModel(name));
  }

  remove(name: string): Promise<void> {
    return this.#change(name, "remove", () => commands.removeModel(name));
  }

  async #change(name: string, what: "load" | "unload" | "remove", change: () => ReturnType<typeof commands.loadModel>): Promise<void> {
    this.problem = "";
    this.busy[name] = what;
    try {
      await call(change());
    } catch (thrown) {
      this.problem = why(thrown);
    }
    this.busy[name] = undefined;
    await this.refresh();
  }
}

export const library = new Library();
