/** Models that a person adds: files and folders that were dropped on the window, or chosen in a dialog. */

import { type Finding, commands } from "./bindings";
import { why } from "./call";
import type { Dropped } from "./drops.svelte";
import { library, withoutFolders } from "./library.svelte";
import { node } from "./node";
import { words } from "./words";

/** A file or folder, and what it is. */
export interface Given {
  name: string;
  found: Finding;
}

/** At most so many reasons are given at once. */
const MOST_REASONS = 3;

/** Kinds that nobody means for a chat. A `config.json`, a `.bin` or a folder may be anything. */
const OF_MODELS = new Set<Finding["kind"]>(["model", "parts_missing", "companion", "several", "no_config"]);

/** Whether something that was dropped on a chat is meant for the models. */
export function isForModels({ file, found }: Dropped): boolean {
  return found !== undefined && OF_MODELS.has(found.kind) && !/\.json$/i.test(file.name);
}

/** The last part of a path. */
const last = (path: string): string => path.slice(path.lastIndexOf("/") + 1);

class Adding {
  /** The names of what is being opened. */
  reading = $state<string[]>([]);
  /** Why some were not added, in sentences. */
  refused = $state<string[]>([]);
  /** What was added, in a sentence. */
  said = $state("");
  /** The model that was added last, to be shown. */
  newest = $state<string>();

  /** Lets a person choose in the system's dialog. */
  async choose(): Promise<void> {
    try {
      await this.add(await commands.chooseFiles());
    } catch (thrown) {
      this.refused = [why(thrown)];
    }
  }

  /** Adds what was dropped. */
  async take(dropped: Dropped[]): Promise<void> {
    const known = dropped.flatMap(({ file, found }) => (found ? [{ name: file.name, found }] : []));
    await this.add(known);
    if (known.length < dropped.length) this.refused.push(words.whereabouts);
  }

  /** One addition at a time: the end of the last one. */
  #last: Promise<void> = Promise.resolve();
  #waiting = 0;

  /**
   * Lists the models among these, and loads the model if it is only one. The node lists a model once it has been opened. What is said of
   * an addition stays while others wait.
   */
  add(given: Given[]): Promise<void> {
    if (this.#waiting === 0) this.clear();
    this.#waiting += 1;
    const added = this.#last.then(() => this.#add(given)).finally(() => (this.#waiting -= 1));
    this.#last = added.catch(() => undefined);
    return added;
  }

  async #add(given: Given[]): Promise<void> {
    const paths = new Set<string>();
    const reasons = new Set<string>();
    for (const { name, found } of given) {
      if (found.kind === "model") paths.add(found.path);
      else reasons.add(words.notAModel(name, found));
    }
    this.reading = [...paths].map(last);
    const added: { name: string; fits: boolean }[] = [];
    for (const path of paths) {
      const opened = await this.#open(path);
      if (typeof opened === "string") reasons.add(words.notAdded(last(path), opened));
      else added.push(opened);
      this.reading = this.reading.slice(1);
    }
    const all = [...reasons];
    const more = all.length - MOST_REASONS;
    this.refused.push(...(more > 0 ? [...all.slice(0, MOST_REASONS), words.moreRefused(more)] : all));
    const [first, ...others] = added;
    if (!first) return;
    this.said = words.addedModels(added.map(({ name }) => last(name)));
    this.newest = first.name;
    const loaded = library.models.some(({ name, loaded }) => name === first.name && loaded);
    if (others.length === 0 && first.fits && !loaded) void library.load(first.name);
  }

  clear(): void {
    [this.refused, this.said] = [[], ""];
  }

  /** Opens a model by its path; why not, if it cannot be used. */
  async #open(path: string): Promise<{ name: string; fits: boolean } | string> {
    let planned = "";
    let problem: unknown;
    try {
      planned = (await node.plan(path)).model;
    } catch (thrown) {
      problem = thrown;
    }
    await library.refresh();
    const isListed = (wanted: string): boolean => library.models.some(({ name }) => name === wanted);
    if (problem === undefined) return { name: !isListed(path) && isListed(planned) ? planned : path, fits: true };
    // There is no room for it; its card says so.
    if (isListed(path)) return { name: path, fits: false };
    return words.sentence(withoutFolders(why(problem)));
  }
}

export const adding = new Adding();
