/** The models on this machine, for the model picker and the Models page. */

import { why } from "./call";
import { type ModelOnDisk, node } from "./node";

/** A message with file names in place of absolute paths. A path may contain spaces: it ends at a colon, or with the message. */
export function withoutFolders(message: string): string {
  return message.replace(/(^|[\s"'(])\/(.*?)(?=: |$)/g, (_, before: string, path: string) => before + path.slice(path.lastIndexOf("/") + 1));
}

class Library {
  /** The models that can be used. */
  models = $state<ModelOnDisk[]>([]);
  /** The models that cannot. */
  unusable = $state<ModelOnDisk[]>([]);
  /** Whether the list was read. */
  read = $state(false);
  /** The operation in progress on each model, by name. */
  busy = $state<Record<string, "load" | "unload" | "remove" | undefined>>({});
  problem = $state("");

  async refresh(): Promise<void> {
    try {
      const all = (await node.models()).map((model) => ({ ...model, unusable: model.unusable && withoutFolders(model.unusable) }));
      this.models = all.filter((model) => !model.unusable);
      this.unusable = all.filter((model) => model.unusable);
      this.read = true;
    } catch (thrown) {
      this.problem = why(thrown);
    }
  }

  load(name: string): Promise<void> {
    return this.#change(name, "load", () => node.loadModel(name));
  }

  unload(name: string): Promise<void> {
    return this.#change(name, "unload", () => node.unloadModel(name));
  }

  remove(name: string): Promise<void> {
    return this.#change(name, "remove", () => node.removeModel(name));
  }

  async #change(name: string, what: "load" | "unload" | "remove", change: () => Promise<unknown>): Promise<void> {
    this.problem = "";
    this.busy[name] = what;
    try {
      await change();
    } catch (thrown) {
      this.problem = why(thrown);
    }
    this.busy[name] = undefined;
    await this.refresh();
  }
}

export const library = new Library();
