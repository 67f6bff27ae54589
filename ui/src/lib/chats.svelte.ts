/** The conversations: the list, the open one, and the answer under way. */

import { Channel } from "@tauri-apps/api/core";

import { type Conversation, type Entry, type News, type Said, commands } from "./bindings";
import { call, why } from "./call";
import { title, words } from "./words";

/** A draft is kept when its writer pauses. */
const DRAFT_PAUSE_MS = 400;

/** An answer under way is kept so often: what came stays, whatever happens to the app. */
const ANSWER_PAUSE_MS = 1000;

/** Where the draft of a conversation is kept that has not begun. */
const UNSENT = "unsent";

/** Where its instructions are. */
const UNSENT_INSTRUCTIONS = "unsent-instructions";

/** More than any model here reads. */
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
  /** Whether a model that can think does; null leaves it to the model. */
  thinking = $state<boolean | null>(null);
  /** How hard it thinks; null leaves it to the model. */
  effort = $state<string | null>(null);
  /** Other options of the model's chat template, as `NAME=VALUE` with commas between. */
  options = $state("");
  /** The conversation whose answer is under way, and what is said of it. */
  busy = $state<{ conversation: string; answer: string; status: string } | undefined>();
  problem = $state("");
  /** What was done, and what takes it back. */
  news = $state<{ text: string; undo?: Conversation } | undefined>();

  #pause: ReturnType<typeof setTimeout> | undefined;
  /** The conversation in which was written what is not kept yet. */
  #written: Conversation | undefined;
  /** The conversation whose answer grows: nobody else may have a copy of it. */
  #growing: Conversation | undefined;
  /** Ends with what is being saved. */
  #saved = Promise.resolve();
  /** Ends with the answer under way, once it is kept. */
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

  /** The conversation of an id, with what has just been said in it. */
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
    // What is still on its way to the disk would bring it back.
    await this.#keepWritten();
    await this.#saved;
    const kept = await call(commands.openConversation(id));
    await call(commands.deleteConversation(id));
    if (id === this.open.id) this.begin();
    if (kept) this.news = { text: words.deleted(kept.title), undo: kept };
    await this.refresh();
  }

  /** Puts back what was deleted last. */
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

  /** Keeps what was written in the open conversation, once its writer pauses. */
  #write(unsent: string, text: string): void {
    clearTimeout(this.#pause);
    // A conversation begins with its first question, not with a draft of it.
    if (this.open.messages.length === 0) {
      localStorage.setItem(unsent, text);
    } else {
      this.#written = this.open;
      this.#pause = setTimeout(() => void this.#keepWritten(), DRAFT_PAUSE_MS);
    }
  }

  /** Keeps at once what was written: whoever looks elsewhere pauses no more. */
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

  /** Answers the last question anew. */
  async again(): Promise<void> {
    const conversation = this.open;
    if (this.busy) return;
    if (conversation.messages.at(-1)?.role === "assistant") conversation.messages.pop();
    await this.#answer(conversation, said("assistant", ""));
  }

  /** Goes on with an answer that was stopped or broke off, from its very token. */
  async goOn(): Promise<void> {
    const conversation = this.open;
    const answer = conversation.messages.at(-1);
    if (this.busy || answer?.role !== "assistant") return;
    conversation.messages.pop();
    await this.#answer(conversation, answer);
  }

  /** Takes a question back into the field; what came after it goes. */
  edit(index: number): string {
    const text = this.open.messages[index]?.text ?? "";
    this.open.messages.splice(index);
    return text;
  }

  async stop(): Promise<void> {
    if (this.busy) await call(commands.stop(this.busy.answer));
  }

  /** One after the other: what is saved last is what was said last. */
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

  /** Saves it, and shows the list with it. */
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
    // The one in the list is what the window watches.
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
    // An answer of which nothing came is no answer.
    if (!answer.text && !answer.complete) conversation.messages.pop();
    await this.#keep(conversation);
  }

  /** What the model's chat template is told. */
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
  // An answer that is gone on with keeps its seed, and so its words.
  return { role, text, tokens: [], seed: Math.floor(Math.random() * 2 ** 31), note: null, complete: role === "user" };
}

export const chats = new Chats();
