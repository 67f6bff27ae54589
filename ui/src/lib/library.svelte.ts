/** The models on this machine, for the model picker and the Models page. */

import type { Loading } from "./bindings";
import { code, why } from "./call";
import { type ModelOnDisk, node } from "./node";

/** Whether a request by this name is answered with the model: its own, or one with an adapter. */
export const answersTo = (model: ModelOnDisk, name: string | null): boolean =>
  model.name === name || (name !== null && model.adapted.includes(name));

/** A message with file names in place of absolute paths. A path may contain anything: it ends at a colon, or with the message. */
export function withoutFolders(message: string): string {
  return message.replace(/(^|[\s"'(])\/([^]*?)(?=: |$)/g, (_, before: string, path: string) => before + path.slice(path.lastIndexOf("/") + 1));
}

/** The load in progress of a model. One that was asked for by its repository has the name of a file in it. */
export function loadOf(loads: Loading[], model: string): Loading | undefined {
  const [base = "", part = ""] = model.toLowerCase().split(":");
  const isFile = (file: string) => file.startsWith(`${base}/`) && file.includes(part);
  return loads.find(({ name }) => name === model) ?? loads.find(({ name }) => isFile(name.toLowerCase()));
}

/** What can be done with a model. */
type Change = "load" | "unload" | "remove" | "pin";

class Library {
  /** The models that can be used. */
  models = $state<ModelOnDisk[]>([]);
  /** The models that cannot. */
  unusable = $state<ModelOnDisk[]>([]);
  /** Whether the list was read. */
  read = $state(false);
  /** The operation in progress on each model, by name. */
  busy = $state<Record<string, Change | undefined>>({});
  problem = $state("");
  /** The model that it is about. */
  problemOf = $state("");
  /** Whether the problem is that the hub wants a token, or another one. */
  denied = $state(false);

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

  /** Loads a model, and gets it first where it is not here; returns whether it is in memory now. */
  load(name: string): Promise<boolean> {
    return this.#change(name, "load", () => node.loadModel(name));
  }

  /** Pauses a download for everybody who waits for it. */
  async pause(name: string): Promise<void> {
    try {
      await node.pauseDownload(name);
    } catch (thrown) {
      // It may have ended meanwhile.
      if (code(thrown) !== "not_downloading") this.problem = why(thrown);
    }
  }

  /** Whether loading this model resumes a download, since no other machine has the missing layers. */
  resumes({ bytes, whole_bytes, also_on }: ModelOnDisk): boolean {
    return whole_bytes !== null && bytes < whole_bytes && also_on.length === 0;
  }

  unload(name: string): Promise<boolean> {
    return this.#change(name, "unload", () => node.unloadModel(name));
  }

  /** Keeps a model in memory and on the disk, or lets it go when its memory or its space is needed. */
  pin(name: string, on: boolean): Promise<boolean> {
    return this.#change(name, "pin", () => node.pin(name, on));
  }

  remove(name: string): Promise<boolean> {
    return this.#change(name, "remove", () => node.removeModel(name));
  }

  async #change(name: string, what: Change, change: () => Promise<unknown>): Promise<boolean> {
    this.problem = "";
    this.denied = false;
    this.busy[name] = what;
    let done = false;
    try {
      await change();
      done = true;
    } catch (thrown) {
      // Somebody wanted it so.
      if (code(thrown) !== "download_paused") {
        this.problem = why(thrown);
        this.problemOf = name;
        this.denied = code(thrown) === "model_denied";
      }
    }
    this.busy[name] = undefined;
    await this.refresh();
    return done;
  }
}

export const library = new Library();
