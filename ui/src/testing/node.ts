/** A node for tests of pages: conversations in memory, answered by the test. */

import type { ChatEvent, Conversation, Entry, Message, Status } from "../lib/conversation";
import type { CatalogueModel, ModelOnDisk } from "../lib/node";
import type { Preset, Prompt } from "../lib/prompts";

const choices = { model: null, temperature: 0.3, top_p: 0.95, max_tokens: null, options: [] };

export const message = (more: Partial<Message>): Message => ({
  id: "m",
  role: "assistant",
  text: "",
  tokens: [],
  seed: 1,
  complete: true,
  note: null,
  computed: null,
  edit: null,
  branches: [more.id ?? "m"],
  ...more,
});

export class FakeNode {
  conversations = new Map<string, Conversation>();
  deleted = new Map<string, Conversation>();
  presets = new Map<string, Preset>();
  prompts = new Map<string, Prompt>();
  titles = true;
  models: ModelOnDisk[] = [];
  catalogue: CatalogueModel[] = [];
  /** Tells that presets or prompts have changed. */
  #shelved = (): void => {};
  /** The message that is being written, by conversation. */
  answering = new Map<string, string>();
  /** Requests that changed something: method, path, body. */
  asked: [string, string, unknown][] = [];
  /** What a request waits for, by its end. */
  held: Record<string, Promise<unknown>> = {};
  /** What a request is refused with, by its end. */
  refused: Record<string, string> = {};
  /** Counts the tokens of a text; without it, the tokenizer is not read yet. */
  count: ((text: string) => number) | undefined;
  /** The conversation that is watched, by topic. */
  #watched = new Map<string, { id: string; send: (event: string) => void }>();
  #number = 0;

  add(id: string, title: string, messages: Message[]): Conversation {
    const made = { id, title, system: "", draft: "", choices, messages, updated_s: Date.now() / 1000, began_s: 1, pinned: false, archived: false };
    this.conversations.set(id, made);
    return made;
  }

  /** Sends more text of the answer in progress. */
  write(id: string, text: string): void {
    const message = this.conversations.get(id)?.messages.find((message) => message.id === this.answering.get(id));
    if (!message) throw new Error("no answer is in progress");
    message.text += text;
    this.#send(id, { kind: "text", text });
  }

  status(id: string, status: Status): void {
    this.#send(id, { kind: "status", status });
  }

  /** Ends the answer in progress. */
  end(id: string, more: Partial<Message> = {}, problem: string | null = null): void {
    const found = this.conversations.get(id);
    const at = found?.messages.findIndex((message) => message.id === this.answering.get(id)) ?? -1;
    this.answering.delete(id);
    if (!found || at < 0) return;
    const ended = { ...found.messages[at]!, complete: true, ...more };
    // An answer without a word is not kept.
    if (ended.text || ended.complete) found.messages[at] = ended;
    else found.messages.splice(at);
    this.whole(id, problem);
  }

  whole(id: string, problem: string | null = null): void {
    if (!this.conversations.has(id)) return;
    for (const watched of this.#watched.values()) if (watched.id === id) watched.send(this.#whole(id, problem));
  }

  #whole(id: string, problem: string | null = null): string {
    const event = { kind: "whole", conversation: this.conversations.get(id), answering: this.answering.get(id) ?? null, status: { kind: "answering" }, problem };
    return JSON.stringify(event);
  }

  #send(id: string, event: ChatEvent): void {
    for (const watched of this.#watched.values()) if (watched.id === id) watched.send(JSON.stringify(event));
  }

  follow({ topic, path, events }: { topic: string; path: string; events: { onmessage: (text: string) => void } }): null {
    if (path === "/hive/v1/conversations/changes") {
      events.onmessage("0");
      return null;
    }
    if (path === "/hive/v1/presets/changes") {
      this.#shelved = () => events.onmessage("0");
      this.#shelved();
      return null;
    }
    const id = path.split("/")[4] ?? "";
    const send = (text: string): void => events.onmessage(text);
    this.#watched.delete(topic);
    send(this.#whole(id));
    this.#watched.set(topic, { id, send });
    return null;
  }

  request(asked: { method: string; path: string; body: string | null }): string | Promise<string> {
    const held = Object.entries(this.held).find(([end]) => asked.path.endsWith(end))?.[1];
    return held ? held.then(() => this.#request(asked)) : this.#request(asked);
  }

  #request({ method, path, body }: { method: string; path: string; body: string | null }): string {
    const given = body === null ? undefined : (JSON.parse(body) as Record<string, unknown>);
    if (path === "/hive/v1/models/tokens") return this.#counted(given?.text as string);
    const [, , , , id = "", what = ""] = path.split(/[/?]/);
    if (method !== "GET") this.asked.push([method, path.replace("/hive/v1", ""), given]);
    const refusal = Object.entries(this.refused).find(([end]) => path.endsWith(end));
    // As an error of a command: an object, not an Error.
    // eslint-disable-next-line @typescript-eslint/only-throw-error
    if (refusal) throw { code: "refused", message: refusal[1], hint: null };
    return JSON.stringify(this.#answer(method, path, id, what, given ?? {}) ?? { done: true });
  }

  #counted(text: string): string {
    // eslint-disable-next-line @typescript-eslint/only-throw-error
    if (!this.count) throw { code: "tokenizer_not_loaded", message: "not yet", hint: null };
    return JSON.stringify({ model: "starter", tokens: this.count(text) });
  }

  #answer(method: string, path: string, id: string, what: string, given: Record<string, unknown>): unknown {
    if (path.startsWith("/hive/v1/models")) return this.models;
    if (path.startsWith("/hive/v1/catalogue")) return { models: this.catalogue, problem: null };
    if (path === "/hive/v1/titles") {
      if (method === "PUT") this.titles = given.on as boolean;
      return { on: this.titles };
    }
    const shelf = path.startsWith("/hive/v1/presets") ? this.presets : path.startsWith("/hive/v1/prompts") ? this.prompts : undefined;
    if (shelf) return this.#shelve(shelf as Map<string, unknown>, method, id, given);
    if (method === "GET" && id && !path.includes("?")) return this.conversations.get(id);
    if (method === "GET") return this.#list(new URLSearchParams(path.split("?")[1]).get("words") ?? "");
    if (method === "POST" && path.endsWith("/conversations")) {
      return [...this.conversations.values()].find(({ messages }) => messages.length === 0) ?? this.add(`new${++this.#number}`, "", []);
    }
    if (path.endsWith("/conversations?fresh=true")) return this.add(`new${++this.#number}`, "", []);
    if (what === "restore") this.conversations.set(id, this.deleted.get(id)!);
    const found = this.conversations.get(id)!;
    if (method === "DELETE") {
      this.conversations.delete(id);
      this.deleted.set(id, found);
    }
    const answer = (): void => {
      const made = message({ id: `a${++this.#number}`, complete: false });
      found.messages.push(made);
      this.answering.set(id, made.id);
    };
    switch (what) {
      case "draft": {
        const edited = found.messages.find(({ id }) => id === given.message);
        if (edited) edited.edit = (given.draft as string) || null;
        else found.draft = given.draft as string;
        return;
      }
      case "choices":
        found.choices = given as unknown as typeof choices;
        return;
      case "archive":
        found.archived = given.on as boolean;
        break;
      case "instructions":
        found.system = given.instructions as string;
        return;
      case "rename":
        found.title = given.title as string;
        break;
      case "ask": {
        const at = found.messages.findIndex((message) => message.id === given.edited);
        const before = found.messages[at];
        if (before) found.messages.splice(at);
        const own = `q${++this.#number}`;
        found.messages.push(message({ id: own, role: "user", text: given.text as string, branches: [...(before?.branches ?? []), own] }));
        found.title ||= given.text as string;
        found.draft = "";
        answer();
        break;
      }
      case "again":
        if (found.messages.at(-1)?.role === "assistant") found.messages.pop();
        answer();
        break;
      case "resume":
        this.answering.set(id, found.messages.at(-1)!.id);
        break;
      case "stop":
        this.end(id, { complete: false });
        break;
    }
    this.whole(id);
    return;
  }

  #shelve(shelf: Map<string, unknown>, method: string, id: string, given: unknown): unknown {
    if (method === "GET") return [...shelf.values()];
    if (method === "DELETE") shelf.delete(id);
    else shelf.set(id, given);
    this.#shelved();
    return undefined;
  }

  #list(words: string): Entry[] {
    const entries = [...this.conversations.values()].filter(({ messages }) => messages.length > 0).map(({ id, title, updated_s, messages, pinned, archived }) => {
      const hit = words ? messages.find(({ text }) => text.includes(words)) : undefined;
      return { id, title, updated_s, snippet: (hit ?? messages.at(-1))?.text ?? "", found: hit?.id ?? null, pinned, archived, answering: this.answering.has(id) };
    });
    return words ? entries.filter(({ title, found }) => found ?? title.includes(words)) : entries;
  }
}
