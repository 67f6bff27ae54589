/** The conversations: the list, the open one, and the answer in progress. */

import { Channel } from "@tauri-apps/api/core";

import { type Conversation, type Entry, type News, type Said, commands } from "./bindings";
import { call, why } from "./call";
import { title, words } from "./words";

/** A draft is saved after this pause in typing. */
const DRAFT_PAUSE_MS = 400;

/** How often an answer in progress is saved, so that a crash loses little of it. */
const ANSWER_PAUSE_MS = 1000;

/** Local storage key of the draft of a new conversation. */
const UNSENT = "unsent";

/** Local storage key of its instructions. */
const UNSENT_INSTRUCTIONS = "unsent-instructions";

/** Maximum length in characters; longer than any supported model's context. */
export const LONGEST_MESSAGE = 400_000;

function now(): number {
  return Date.now() / 1000;
}

function fresh(): Conversation {
  const draft = localStorage.getItem(UNSENT) ?? "";
  const system = localStorage.getItem(UNSENT_INSTRUCTIONS) ?? "";
  return { id: crypto.randomUUID(), title: "", system, draft, messages: [], updated_s: now(), began_s: now() };
}

class Chats {
  list = $state<Entry[]>([]);
  words = $state("");
  open = $state<Conversation>(fresh());
  model = $state<string | null>(null);
  temperature = $state(0.3);
  top_p = $state(0.95);
  /** Whether a reasoning model thinks; null leaves it to the model. */
  thinking = $state<boolean | null>(null);
  /** Reasoning effort; null leaves it to the model. */
  effort = $state<string | null>(null);
  /** Other options of the model's chat template, as comma-separated `NAME=VALUE` pairs. */
  options = $state("");
  /** The conversation with an answer in progress, and that answer's status. */
  busy = $state<{ conversation: string; answer: string; status: string } | undefined>();
  problem = $state("");
  /** The last action, and the conversation that undoing it restores. */
  news = $state<{ text: string; undo?: Conversation } | undefined>();

  #pause: ReturnType<typeof setTimeout> | undefined;
  /** The conversation with unsaved text. */
  #written: Conversation | undefined;
  /** The conversation with an answer in progress; it must exist only once in memory. */
  #growing: Conversation | undefined;
  /** Resolves when the pending save is done. */
  #saved = Promise.resolve();
  /** Resolves when the answer in progress has ended and is saved. */
  #ended = Promise.resolve();

  get answering(): boolean {
    return this.busy?.conversation === this.open.id;
  }

  async refresh(): Promise<void> {
    try {
      this.list = await call(commands.listConversations(this.words));
    } catch (problem) {
      this.problem = why(problem);
    }
  }

  begin(): void {
    void this.#keepWritten();
    this.open = fresh();
    this.problem = "";
    this.news = undefined;
  }

  async show(id: string): Promise<void> {
    await this.#keepWritten();
    const found = await this.#find(id);
    if (found) this.open = found;
    this.problem = "";
  }

  /** Finds a conversation by ID; one in memory is newer than the one on disk. */
  async #find(id: string): Promise<Conversation | null> {
    const here = [this.open, this.#growing].find((conversation) => conversation?.id === id);
    return here ?? (await call(commands.openConversation(id)));
  }

  async rename(id: string, name: string): Promise<void> {
    const found = await this.#find(id);
    if (!found || !name.trim()) return;
    found.title = name.trim();
    await this.#keep(found);
  }

  async remove(id: string): Promise<void> {
    if (this.busy?.conversation === id) {
      await this.stop();
      await this.#ended;
    }
    // A pending save would restore it.
    await this.#keepWritten();
    await this.#saved;
    const kept = await call(commands.openConversation(id));
    await call(commands.deleteConversation(id));
    if (id === this.open.id) this.begin();
    if (kept) this.news = { text: words.deleted(kept.title), undo: kept };
    await this.refresh();
  }

  /** Restores the conversation deleted last. */
  async undo(): Promise<void> {
    const deleted = this.news?.undo;
    this.news = undefined;
    if (deleted) await this.#keep($state.snapshot(deleted));
  }

  async export(): Promise<void> {
    this.news = undefined;
    try {
      this.news = { text: words.exported(await call(commands.exportConversation(this.open.id))) };
    } catch (problem) {
      this.problem = why(problem);
    }
  }

  drafted(text: string): void {
    this.open.draft = text;
    this.#write(UNSENT, text);
  }

  instructed(text: string): void {
    this.open.system = text;
    this.#write(UNSENT_INSTRUCTIONS, text);
  }

  /** Saves the text typed in the open conversation after a pause. */
  #write(unsent: string, text: string): void {
    clearTimeout(this.#pause);
    // A conversation without a question is not stored; its text goes to local storage.
    if (this.open.messages.length === 0) {
      localStorage.setItem(unsent, text);
    } else {
      this.#written = this.open;
      this.#pause = setTimeout(() => void this.#keepWritten(), DRAFT_PAUSE_MS);
    }
  }

  /** Saves typed text at once, for use before switching conversations. */
  async #keepWritten(): Promise<void> {
    clearTimeout(this.#pause);
    const conversation = this.#written;
    this.#written = undefined;
    if (conversation) await this.#keep(conversation);
  }

  async send(text: string): Promise<void> {
    const conversation = this.open;
    if (!text.trim() || this.busy) return;
    clearTimeout(this.#pause);
    this.#written = undefined;
    if (conversation.messages.length === 0) {
      localStorage.removeItem(UNSENT);
      localStorage.removeItem(UNSENT_INSTRUCTIONS);
    }
    conversation.draft = "";
    conversation.messages.push(said("user", text.trim()));
    if (!conversation.title) conversation.title = title(text);
    await this.#answer(conversation, said("assistant", ""));
  }

  /** Answers the last question again. */
  async again(): Promise<void> {
    const conversation = this.open;
    if (this.busy) return;
    if (conversation.messages.at(-1)?.role === "assistant") conversation.messages.pop();
    await this.#answer(conversation, said("assistant", ""));
  }

  /** Resumes a stopped or interrupted answer from its last token. */
  async goOn(): Promise<void> {
    const conversation = this.open;
    const answer = conversation.messages.at(-1);
    if (this.busy || answer?.role !== "assistant") return;
    conversation.messages.pop();
    await this.#answer(conversation, answer);
  }

  /** Moves a question back into the input field; removes it and everything after it. */
  edit(index: number): string {
    const text = this.open.messages[index]?.text ?? "";
    this.open.messages.splice(index);
    return text;
  }

  async stop(): Promise<void> {
    if (this.busy) await call(commands.stop(this.busy.answer));
  }

  /** Saves one at a time, so that the newest version is written last. */
  #save(conversation: Conversation): Promise<void> {
    this.#saved = this.#saved.then(async () => {
      try {
        await call(commands.keepConversation($state.snapshot(conversation) as Conversation));
      } catch (problem) {
        this.problem = why(problem);
      }
    });
    return this.#saved;
  }

  /** Saves a conversation and refreshes the list. */
  async #keep(conversation: Conversation): Promise<void> {
    await this.#save(conversation);
    await this.refresh();
  }

  #answer(conversation: Conversation, begun: Said): Promise<void> {
    this.#growing = conversation;
    this.#ended = this.#grow(conversation, begun).finally(() => (this.#growing = undefined));
    return this.#ended;
  }

  async #grow(conversation: Conversation, begun: Said): Promise<void> {
    const turns = conversation.messages.map(({ role, text }) => ({ role, text }));
    const system = conversation.system.trim();
    if (system) turns.unshift({ role: "system", text: system });
    conversation.messages.push({ ...begun, complete: false, note: null });
    // Take the reactive proxy from the list; the window does not observe the original.
    const answer = conversation.messages.at(-1);
    if (!answer) return;
    conversation.updated_s = now();
    const id = crypto.randomUUID();
    this.busy = { conversation: conversation.id, answer: id, status: "" };
    this.problem = "";
    await this.#keep(conversation);
    const news = new Channel<News>();
    news.onmessage = (event) => this.#take(answer, event);
    const question = {
      id,
      model: this.model,
      messages: turns,
      said: [...answer.tokens],
      temperature: this.temperature,
      top_p: this.top_p,
      max_tokens: null,
      seed: answer.seed ?? 0,
      options: this.#options(),
      began_s: conversation.began_s ?? null,
    };
    let kept = answer.text.length;
    const keeping = setInterval(() => {
      if (answer.text.length !== kept) void this.#save(conversation);
      kept = answer.text.length;
    }, ANSWER_PAUSE_MS);
    try {
      await call(commands.ask(question, news));
    } catch (problem) {
      this.problem = why(problem);
    }
    clearInterval(keeping);
    this.busy = undefined;
    conversation.updated_s = now();
    // Drop an answer without any text.
    if (!answer.text && !answer.complete) conversation.messages.pop();
    await this.#keep(conversation);
  }

  /** Options for the model's chat template. */
  #options(): string[] {
    const others = this.options.split(",").map((option) => option.trim());
    const thinking = this.thinking === null ? "" : `enable_thinking=${this.thinking}`;
    const effort = this.effort === null ? "" : `reasoning_effort=${this.effort}`;
    return [thinking, effort, ...others].filter((option) => option);
  }

  #take(answer: Said, news: News): void {
    switch (news.kind) {
      case "text":
        answer.text += news.text;
        answer.tokens.push(...news.tokens);
        if (this.busy) this.busy.status = "";
        break;
      case "reading":
        if (this.busy) this.busy.status = words.reading(news.tokens, news.of);
        break;
      case "status":
        if (this.busy) this.busy.status = news.text;
        break;
      case "done":
        answer.text += news.text;
        answer.tokens = news.tokens;
        answer.complete = !news.cut;
        answer.note = [
          words.answeredBy(news.tokens_per_s, news.machines, news.first_s),
          ...news.unknown_options.map(words.noSuchOption),
        ].join(" · ");
        break;
      case "failed":
        this.problem = words.brokeOff(news.why);
        break;
    }
  }
}

function said(role: string, text: string): Said {
  // A resumed answer keeps its seed, so that it continues as it would have.
  return { role, text, tokens: [], seed: Math.floor(Math.random() * 2 ** 31), note: null, complete: role === "user" };
}

export const chats = new Chats();
