/** Prompts as the composer uses them: their fields, and their text once the fields are filled. */

import type * as bindings from "./bindings";
import type { Choices } from "./conversation";
import { words } from "./words";

export type Prompt = Required<bindings.Prompt>;
export type Preset = Required<Omit<bindings.Preset, "choices">> & { choices: Choices };

const FIELD = /\{\{\s*([^{}\n]+?)\s*\}\}/g;

/** The names of a text's fields, each once. */
export function fields(text: string): string[] {
  return [...new Set([...text.matchAll(FIELD)].map((match) => match[1]!))];
}

/** The text with its fields filled. */
export function fill(text: string, values: Record<string, string>): string {
  return text.replace(FIELD, (field, name: string) => values[name] ?? field);
}

/** A prompt as it is shown: those that come with HiveMind in the language of the window. */
export function shown(prompt: Prompt): Prompt {
  const own = prompt.starter ? words.starters[prompt.id] : undefined;
  return own ? { ...prompt, ...own } : prompt;
}

/** The prompts that have all words in their name or text, by name; those with them in the name first. */
export function matching(prompts: Prompt[], wanted: string): Prompt[] {
  const parts = wanted.toLowerCase().split(/\s+/).filter(Boolean);
  const has = (text: string): boolean => parts.every((part) => text.toLowerCase().includes(part));
  const sorted = prompts.map(shown).sort((one, other) => one.name.localeCompare(other.name));
  const found = sorted.filter(({ name, text }) => has(`${name} ${text}`));
  return [...found.filter(({ name }) => has(name)), ...found.filter(({ name }) => !has(name))];
}
