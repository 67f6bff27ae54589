/** Presets, prompts and the switch for titles, as the node keeps them. */

import { api } from "./api";
import { why } from "./call";
import { chats } from "./chats.svelte";
import type { Preset, Prompt } from "./prompts";
import { shown } from "./prompts";
import { words } from "./words";

/** Many changes at once are read once. */
const READ_PAUSE_MS = 50;

/** 128 random bits as hex, as the node's own IDs are. `randomUUID` exists in pages of secure origins only. */
function newId(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

class Shelf {
  presets = $state.raw<Preset[]>([]);
  prompts = $state.raw<Prompt[]>([]);
  /** Whether the model writes titles of new chats. */
  titles = $state(true);
  /** The prompt that is being edited; a new one has no ID. */
  editing = $state<Pick<Prompt, "id" | "name" | "text">>();
  /** The last deletion, and how it is undone. */
  news = $state<{ text: string; undo: () => Promise<unknown> }>();

  #started = false;
  #reading: ReturnType<typeof setTimeout> | undefined;

  /** Follows the node's presets and prompts. Once, however often the page is shown. */
  async start(): Promise<void> {
    if (this.#started) return;
    this.#started = true;
    const changed = (): void => {
      clearTimeout(this.#reading);
      this.#reading = setTimeout(() => void this.#attempt(() => this.#read()), READ_PAUSE_MS);
    };
    await this.#attempt(() => api.follow<number>("shelf", "/presets/changes", changed));
  }

  /** Forgets everything, as a reload does. */
  reset(): void {
    clearTimeout(this.#reading);
    Object.assign(this, { presets: [], prompts: [], titles: true, editing: undefined, news: undefined });
    this.#started = false;
  }

  async #read(): Promise<void> {
    const [presets, prompts, { on }] = await Promise.all([
      api.get<Preset[]>("/presets"),
      api.get<Prompt[]>("/prompts"),
      api.get<{ on: boolean }>("/titles"),
    ]);
    Object.assign(this, { presets, prompts, titles: on });
  }

  /** Saves the open conversation's settings under a name; returns the preset. */
  async savePreset(name: string): Promise<Preset | undefined> {
    const preset = { ...this.#present(), id: newId(), name, for_new: false };
    return (await this.#put("presets", preset)) ? preset : undefined;
  }

  /** Gives a preset the settings of the open conversation. */
  async updatePreset(preset: Preset): Promise<void> {
    await this.#put("presets", { ...preset, ...this.#present() });
  }

  async changePreset(preset: Preset, change: Partial<Preset>): Promise<void> {
    await this.#put("presets", { ...preset, ...change });
  }

  async deletePreset(preset: Preset): Promise<void> {
    const undo = (): Promise<unknown> => this.#put("presets", preset);
    if (await this.#attempt(() => api.delete(`/presets/${preset.id}`))) this.news = { text: words.deletedPreset(preset.name), undo };
  }

  /** Applies a preset to the open conversation. */
  apply(preset: Preset): void {
    chats.instructed(preset.system);
    chats.prefer(preset.choices);
  }

  /** Whether the open conversation has a preset's settings. */
  isApplied(preset: Preset): boolean {
    const { system, choices } = this.#present();
    const model = (of: Preset["choices"]) => JSON.stringify([of.model, of.temperature, of.top_p, of.max_tokens, of.options]);
    return system === preset.system && model(choices) === model(preset.choices);
  }

  async putPrompt(id: string, name: string, text: string): Promise<boolean> {
    return this.#put("prompts", { id: id || newId(), name, text, starter: false });
  }

  async deletePrompt(prompt: Prompt): Promise<void> {
    const undo = (): Promise<unknown> => this.#put("prompts", prompt);
    if (await this.#attempt(() => api.delete(`/prompts/${prompt.id}`))) this.news = { text: words.deletedPrompt(shown(prompt).name), undo };
  }

  async setTitles(on: boolean): Promise<void> {
    this.titles = on;
    await this.#attempt(() => api.put("/titles", { on }));
  }

  async undo(): Promise<void> {
    const { news } = this;
    this.news = undefined;
    await news?.undo();
  }

  #present(): Pick<Preset, "system" | "choices"> {
    return { system: chats.system, choices: $state.snapshot(chats.choices) };
  }

  #put(kind: "presets" | "prompts", made: Preset | Prompt): Promise<boolean> {
    return this.#attempt(() => api.put(`/${kind}/${encodeURIComponent(made.id)}`, made));
  }

  /** Tries something; says why it failed. */
  async #attempt(action: () => Promise<unknown>): Promise<boolean> {
    try {
      await action();
      return true;
    } catch (thrown) {
      chats.problem = why(thrown);
      return false;
    }
  }
}

export const shelf = new Shelf();
