/** The conversations, as the node keeps them: the list, and the one that is open. */

import { api } from "./api";
import { type Composed, compose, parse } from "./attachments";
import { commands } from "./bindings";
import { call, why } from "./call";
import { copy } from "./clipboard";
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

export interface Sought {
  message: string;
  words: string;
}

interface News {
  text: string;
  undo?: () => Promise<unknown>;
  /** What can be done with it. */
  more?: { word: string; act: () => Promise<unknown> };
}

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
  /** Edited questions that are not sent yet, by message. */
  edits = $state<Record<string, Composed>>({});
  /** The one that was begun last, which has the focus. */
  begun = $state("");
  /** The one that is being sent. */
  sending = $state("");
  /** The last action, and how it is undone. */
  news = $state.raw<News | undefined>();
  /** The message and the words to scroll to, which a search found. */
  sought = $state.raw<Sought | null>(null);

  /** Earlier actions that can still be undone. */
  #earlier: News[] = [];
  /** The conversation that is being deleted here. */
  #removing = "";
  #started = false;
  /** Writes of drafts, one after the other, so that the newest is last. */
  #writes: Promise<unknown> = Promise.resolve();
  /** Drafts not written yet, by what they are of. */
  #typed = new Map<string, { route: string; body: unknown }>();
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
    this.edits = {};
    this.begun = this.sending = "";
    this.#earlier = [];
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

  /** Opens a conversation; with `message`, at these words of that message. */
  async show(id: string, message: string | null = null, words = ""): Promise<void> {
    await this.#attempt(async () => {
      if (id !== this.open.id) await this.#open(() => Promise.resolve(id));
      if (message && !this.open.messages.some(({ id }) => id === message)) await this.choose(message);
      this.sought = message === null ? null : { message, words };
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
        // An edit that was not sent is there again with its message, also with that of another branch.
        const seen = new Set(conversation.id === before ? this.open.messages.map(({ id }) => id) : []);
        const edited = conversation.messages.flatMap(({ id, edit }) => (edit === null || seen.has(id) ? [] : [[id, parse(edit)] as const]));
        this.edits = { ...Object.fromEntries(edited), ...(conversation.id === before ? this.edits : {}) };
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
        if (this.#removing !== this.open.id) void this.begin();
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
      this.#removing = id;
      const deletion = api.delete(`/conversations/${id}`);
      const undo = async (): Promise<void> => {
        // An answer in progress is saved before its conversation is deleted: a deletion that is undone at once must not
        // happen afterwards. A failure is told below.
        await deletion.catch(() => undefined);
        await api.post(`/conversations/${id}/restore`);
      };
      this.#tell({ text: words.deleted(title), undo });
      try {
        await deletion;
        if (id === this.open.id) await this.begin();
      } finally {
        if (this.#removing === id) this.#removing = "";
      }
    });
  }

  /** Tells of an action. What can be undone before it still can be afterwards. */
  #tell(news: News): void {
    if (this.news?.undo) this.#earlier.push(this.news);
    this.news = news;
  }

  /** Undoes the last action, and offers the one before. */
  async undo(): Promise<void> {
    const undo = this.news?.undo;
    this.news = this.#earlier.pop();
    if (undo) await this.#attempt(undo);
  }

  /** Closes the news. What it covered and can still be undone is offered again. */
  dismiss(): void {
    const undone = this.news?.undo;
    this.news = undone ? undefined : this.#earlier.pop();
    if (undone) this.#earlier = [];
  }

  async export(): Promise<void> {
    await this.#attempt(async () => {
      const { id, title } = this.open;
      if (inApp()) {
        const text = words.exported(await call(commands.exportConversation(id)));
        this.#tell({ text, more: { word: words.showInFolder, act: () => call(commands.showExports()) } });
      }
      else download(`${title || id}.md`, (await api.get<{ markdown: string }>(`/conversations/${id}/markdown`)).markdown);
    });
  }

  /** Copies the branch that is shown, as Markdown. Within the click: later, a web view refuses. */
  async copy(): Promise<void> {
    const { title, messages } = this.open;
    const turns = messages.map(({ role, text }) => `## ${role === "user" ? words.you : words.answer}\n\n${text.trimEnd()}`);
    this.#tell({ text: (await copy([`# ${title || words.newChat}`, ...turns, ""].join("\n\n"))) ? words.copied : words.notCopied });
  }

  /** Does what the news offers. */
  async act(): Promise<void> {
    const act = this.news?.more?.act;
    if (act) await this.#attempt(act);
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

  /** Begins to edit a question, with what it was changed to before, if that was not sent. */
  beginEdit(message: string): void {
    const of = this.open.messages.find(({ id }) => id === message);
    this.begun = message;
    if (of) this.edits[message] ??= parse(of.edit ?? of.text);
  }

  /** Changes what a question is edited to. */
  rewrite(message: string, edit: Composed): void {
    this.edits[message] = edit;
    const draft = compose(edit.text, edit.files);
    this.#write("draft", { draft: draft === this.#text(message) ? "" : draft, message }, message);
  }

  /** Ends an edit without sending it. What was changed can be brought back. */
  dropEdit(message: string): void {
    const edit = this.edits[message];
    if (!edit) return;
    const of = this.open;
    this.#endEdit(message);
    this.#write("draft", { draft: "", message }, message);
    if (compose(edit.text, edit.files) === this.#text(message)) return;
    this.#tell({
      text: words.editDropped,
      undo: async () => {
        if (this.open.id !== of.id) await this.#open(() => Promise.resolve(of.id));
        // What was begun meanwhile can be brought back as well.
        if (this.edits[message]) this.dropEdit(message);
        this.begun = message;
        this.rewrite(message, edit);
      },
    });
  }

  #text(message: string): string | undefined {
    return this.open.messages.find(({ id }) => id === message)?.text;
  }

  #endEdit(message: string): void {
    const { [message]: _, ...others } = this.edits;
    this.edits = others;
    // The node is told as well, and says so with the next change.
    this.open = { ...this.open, messages: this.open.messages.map((of) => (of.id === message ? { ...of, edit: null } : of)) };
  }

  /** Writes a draft of the open conversation after a pause. */
  #write(what: string, body: unknown, part = ""): void {
    const { id } = this.open;
    if (!id) return;
    this.#typed.set(`${id} ${what} ${part}`, { route: `/conversations/${id}/${what}`, body });
    clearTimeout(this.#pause);
    this.#pause = setTimeout(() => void this.#settle(), TYPING_PAUSE_MS);
  }

  /** Writes the draft at once, as before the page is left. */
  leave(): Promise<unknown> {
    return this.#settle();
  }

  #settle(): Promise<unknown> {
    clearTimeout(this.#pause);
    for (const { route, body } of this.#typed.values()) {
      this.#writes = this.#writes.then(() => this.#attempt(() => api.post(route, body)));
    }
    this.#typed.clear();
    return this.#writes;
  }

  async send(): Promise<void> {
    const text = this.draft.trim();
    const { id } = this.open;
    if (!text || this.answering || !id) return;
    await this.#settle();
    if (this.open.id === id) this.draft = "";
    // The draft is on the node until the question is asked there.
    const asked = await this.#ask(id, "ask", { text });
    if (!asked && this.open.id === id) this.draft = text;
  }

  /** Asks another version of a question; the one before stays as a branch. */
  async edit(message: string): Promise<void> {
    const edit = this.edits[message];
    const text = edit ? compose(edit.text.trim(), edit.files) : "";
    if (!text || this.sending) return;
    this.sending = message;
    if (await this.#ask(this.open.id, "ask", { text, edited: message })) this.#endEdit(message);
    this.sending = "";
  }

  /** Gives another answer to a question; `message` is the question or its answer. */
  async again(message: string): Promise<void> {
    await this.#ask(this.open.id, "again", { message });
  }

  /** Resumes a stopped or interrupted answer from its last token. */
  async goOn(): Promise<void> {
    await this.#ask(this.open.id, "resume");
  }

  async stop(): Promise<void> {
    await this.#ask(this.open.id, "stop");
  }

  /** Shows the branch of a version of a message. */
  async choose(message: string): Promise<void> {
    const { id } = this.open;
    await this.#attempt(() => api.post(`/conversations/${id}/choose`, { message }));
  }

  /** Acts on a conversation, which may no longer be the open one by the time that its drafts are written. */
  async #ask(id: string, what: string, body?: unknown): Promise<boolean> {
    this.problem = "";
    await this.#settle();
    try {
      await api.post(`/conversations/${id}/${what}`, body);
      return true;
    } catch (thrown) {
      if (this.open.id === id) this.problem = why(thrown);
      return false;
    }
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
