/** The conversations, as the node keeps them: the list, and the one that is open. */

import { api } from "./api";
import { commands } from "./bindings";
import { call, why } from "./call";
import type { ChatEvent, Choices, Conversation, Entry, Status } from "./conversation";
import { download } from "./download";
import { inApp } from "./place";
import { words } from "./words";

/** A draft is saved after this pause. */
const TYPING_PAUSE_MS = 400;

/** The list is read again this long after a change, so that many changes are one. */
const LIST_PAUSE_MS = 50;

/** A machine that left is told of for at least this long. */
const RECOVERING_MS = 2000;

/** Maximum length in characters; longer than any supported model's context. */
export const LONGEST_MESSAGE = 400_000;

const NONE: Conversation = {
  id: "",
  title: "",
  system: "",
  draft: "",
  choices: { model: null, temperature: 0.3, top_p: 0.95, max_tokens: null, options: [] },
  messages: [],
  updated_s: 0,
  began_s: null,
  pinned: false,
  archived: false,
};

class Chats {
  list = $state.raw<Entry[]>([]);
  /** Whether the list has been read. */
  listed = $state(false);
  words = $state("");
  /** Whether the archive is listed. */
  archive = $state(false);
  /** The open conversation, as the node sent it last. */
  open = $state.raw<Conversation>(NONE);
  /** Text that the answer in progress has beyond that. */
  grown = $state("");
  /** The message that is being written. */
  answering = $state<string | null>(null);
  status = $state.raw<Status>({ kind: "answering" });
  draft = $state("");
  system = $state("");
  choices = $state<Choices>(NONE.choices);
  problem = $state("");
  /** The last action, and the conversation that undoing it restores. */
  news = $state<{ text: string; undo?: string } | undefined>();
  /** The message to scroll to: the passage that a search found. */
  sought = $state<string | null>(null);

  /** Ends when the last deletion has. */
  #deletion: Promise<unknown> = Promise.resolve();
  #started = false;
  /** Writes of drafts, one after the other, so that the newest is last. */
  #writes: Promise<unknown> = Promise.resolve();
  /** Drafts not written yet, by route. */
  #typed = new Map<string, unknown>();
  /** The draft and the choices for the conversation that is being opened. */
  #early: { draft?: string; system?: string; choices?: Partial<Choices> } = {};
  #pause: ReturnType<typeof setTimeout> | undefined;
  #listing: ReturnType<typeof setTimeout> | undefined;
  #recovering = 0;
  #later: ReturnType<typeof setTimeout> | undefined;

  /** Follows the list, and opens a new conversation. Once, however often the page is shown. */
  async start(): Promise<void> {
    if (this.#started) return;
    this.#started = true;
    const changed = (): void => {
      clearTimeout(this.#listing);
      this.#listing = setTimeout(() => void this.refresh(), LIST_PAUSE_MS);
    };
    await this.#attempt(() => api.follow<number>("conversations", "/conversations/changes", changed));
    if (!this.open.id) await this.begin();
  }

  /** Forgets everything, as a reload does. */
  reset(): void {
    clearTimeout(this.#pause);
    clearTimeout(this.#listing);
    clearTimeout(this.#later);
    Object.assign(this, { list: [], listed: false, words: "", archive: false, open: NONE, problem: "", news: undefined, sought: null });
    Object.assign(this, { grown: "", answering: null, draft: "", system: "", choices: NONE.choices });
    this.#typed.clear();
    this.#early = {};
    this.#started = false;
  }

  async refresh(): Promise<void> {
    await this.#attempt(async () => {
      this.list = await api.get<Entry[]>(`/conversations?words=${encodeURIComponent(this.words)}`);
      this.listed = true;
    });
  }

  /** Opens the conversation that has no message yet, with its draft. */
  async begin(): Promise<void> {
    await this.#attempt(() => this.#open(async () => (await api.post<Conversation>("/conversations")).id));
  }

  /** Opens a conversation; with `message`, at that message. */
  async show(id: string, message: string | null = null): Promise<void> {
    await this.#attempt(async () => {
      if (id !== this.open.id) await this.#open(() => Promise.resolve(id));
      if (message && !this.open.messages.some(({ id }) => id === message)) await this.choose(message);
      this.sought = message;
    });
  }

  async #open(which: () => Promise<string>): Promise<void> {
    const settled = this.#settle();
    const { open, draft, system, choices, grown, answering } = this;
    // Text typed from here on is for the next conversation, however soon it is typed.
    if (open.id) Object.assign(this, { open: NONE, draft: "", system: "", choices: NONE.choices, grown: "", answering: null, problem: "", sought: null });
    try {
      await settled;
      const id = await which();
      let opened: () => void = () => {};
      const whole = new Promise<void>((done) => (opened = done));
      await api.follow<ChatEvent>("conversation", `/conversations/${id}/events`, (event) => {
        // The stream followed before may still send events.
        if (event.kind === "whole" ? event.conversation.id !== id : this.open.id !== id) return;
        this.#take(event);
        opened();
      });
      await whole;
    } catch (thrown) {
      Object.assign(this, { open, draft, system, choices, grown, answering });
      throw thrown;
    }
  }

  #take(event: ChatEvent): void {
    switch (event.kind) {
      case "whole": {
        const { conversation } = event;
        const before = this.open.id;
        this.open = conversation;
        if (conversation.id !== before) {
          ({ draft: this.draft, system: this.system } = conversation);
          this.choices = conversation.choices;
          const { draft, system, choices } = this.#early;
          this.#early = {};
          if (draft !== undefined) this.drafted(draft);
          if (system !== undefined) this.instructed(system);
          if (choices) this.prefer(choices);
        }
        this.grown = "";
        this.answering = event.answering;
        this.#show(event.status);
        if (event.problem) this.problem = this.#broken(event.problem, event.code);
        break;
      }
      case "text":
        this.grown += event.text;
        break;
      case "status":
        this.#show(event.status);
        break;
      case "deleted":
        if (!this.news?.undo) void this.begin();
        break;
    }
  }

  #broken(message: string, code: string | null): string {
    const last = this.open.messages.at(-1);
    if (last?.role !== "assistant") return why({ code, message });
    return words.brokeOff(code ? why({ code, message }).replace(/\.$/, "") : message);
  }

  /** Shows the answer's status; news of a machine stays long enough to be read. */
  #show(status: Status): void {
    clearTimeout(this.#later);
    const now = performance.now();
    if (status.kind === "recovering") this.#recovering = now + RECOVERING_MS;
    if (status.kind !== "answering" || now >= this.#recovering) {
      this.status = status;
    } else {
      this.#later = setTimeout(() => (this.status = status), this.#recovering - now);
    }
  }

  async rename(id: string, title: string): Promise<void> {
    if (title.trim()) await this.#attempt(() => api.post(`/conversations/${id}/rename`, { title }));
  }

  async pin(id: string, on: boolean): Promise<void> {
    await this.#attempt(() => api.post(`/conversations/${id}/pin`, { on }));
  }

  async keepAway(id: string, on: boolean): Promise<void> {
    await this.#attempt(() => api.post(`/conversations/${id}/archive`, { on }));
  }

  async remove(id: string, title: string): Promise<void> {
    await this.#attempt(async () => {
      await this.#settle();
      this.news = { text: words.deleted(title), undo: id };
      const deletion = api.delete(`/conversations/${id}`);
      // A failure is told below.
      this.#deletion = deletion.catch(() => undefined);
      await deletion;
      if (id === this.open.id) await this.begin();
    });
  }

  /** Restores the conversation deleted last. */
  async undo(): Promise<void> {
    const id = this.news?.undo;
    this.news = undefined;
    if (!id) return;
    // An answer in progress is saved before its conversation is deleted: a deletion that is undone at once must not
    // happen afterwards.
    await this.#deletion;
    await this.#attempt(() => api.post(`/conversations/${id}/restore`));
  }

  async export(): Promise<void> {
    this.news = undefined;
    await this.#attempt(async () => {
      const { id, title } = this.open;
      if (inApp()) this.news = { text: words.exported(await call(commands.exportConversation(id))) };
      else download(`${title || id}.md`, (await api.get<{ markdown: string }>(`/conversations/${id}/markdown`)).markdown);
    });
  }

  drafted(text: string): void {
    this.draft = text;
    if (!this.open.id) this.#early.draft = text;
    this.#write("draft", { draft: text });
  }

  instructed(text: string): void {
    this.system = text;
    if (!this.open.id) this.#early.system = text;
    this.#write("instructions", { instructions: text });
  }

  /** Changes model or sampling of the open conversation. */
  prefer(change: Partial<Choices>): void {
    this.choices = { ...this.choices, ...change };
    if (!this.open.id) this.#early.choices = { ...this.#early.choices, ...change };
    this.#write("choices", $state.snapshot(this.choices));
  }

  /** Writes the open conversation's draft after a pause. */
  #write(what: string, body: unknown): void {
    if (!this.open.id) return;
    this.#typed.set(`/conversations/${this.open.id}/${what}`, body);
    clearTimeout(this.#pause);
    this.#pause = setTimeout(() => void this.#settle(), TYPING_PAUSE_MS);
  }

  /** Writes the draft at once, as before the page is left. */
  leave(): void {
    void this.#settle();
  }

  #settle(): Promise<unknown> {
    clearTimeout(this.#pause);
    for (const [route, body] of this.#typed) {
      this.#writes = this.#writes.then(() => this.#attempt(() => api.post(route, body)));
    }
    this.#typed.clear();
    return this.#writes;
  }

  async send(): Promise<void> {
    const text = this.draft.trim();
    if (!text || this.answering || !this.open.id) return;
    this.problem = "";
    await this.#settle();
    this.draft = "";
    if (!(await this.#attempt(() => api.post(`/conversations/${this.open.id}/ask`, { text })))) this.draft = text;
  }

  /** Asks another version of a question; the one before stays as a branch. */
  async edit(message: string, text: string): Promise<boolean> {
    this.problem = "";
    await this.#settle();
    return this.#attempt(() => api.post(`/conversations/${this.open.id}/ask`, { text, edited: message }));
  }

  /** Gives another answer to a question; `message` is the question or its answer. */
  async again(message: string): Promise<void> {
    this.problem = "";
    await this.#settle();
    await this.#attempt(() => api.post(`/conversations/${this.open.id}/again`, { message }));
  }

  /** Resumes a stopped or interrupted answer from its last token. */
  async goOn(): Promise<void> {
    this.problem = "";
    await this.#settle();
    await this.#attempt(() => api.post(`/conversations/${this.open.id}/resume`));
  }

  async stop(): Promise<void> {
    await this.#settle();
    await this.#attempt(() => api.post(`/conversations/${this.open.id}/stop`));
  }

  /** Shows the branch of a version of a message. */
  async choose(message: string): Promise<void> {
    await this.#attempt(() => api.post(`/conversations/${this.open.id}/choose`, { message }));
  }

  /** Tries something; says why it failed. */
  async #attempt(action: () => Promise<unknown>): Promise<boolean> {
    try {
      await action();
      return true;
    } catch (thrown) {
      this.problem = why(thrown);
      return false;
    }
  }
}

export const chats = new Chats();
