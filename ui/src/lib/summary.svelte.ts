/**
 * A summary of a conversation, as the beginning of a new one. The conversation's own model writes it, in a conversation
 * that is archived while it is written and deleted at its end. It becomes a file of the new chat's draft, which is sent with
 * the next message and can be read and changed before.
 */

import { api } from "./api";
import { compose, parse } from "./attachments";
import { why } from "./call";
import { chats } from "./chats.svelte";
import type { ChatEvent, Conversation, Status } from "./conversation";
import { type Transcript, said, summaryRequest, summaryTokens, transcript } from "./transcript";
import { words } from "./words";

/** If the node refuses a transcript as too long, so much of the last one is tried. */
const LESS = 0.75;
const ATTEMPTS = 4;

export interface Job {
  /** The conversation that is summarised. */
  of: Conversation;
  /** The new one. */
  into: string;
  title: string;
  text: string;
  status: Status | null;
}

class Summary {
  /** The summary that is being written. */
  job = $state<Job>();
  /** What is said about the last one, in the chat that it belongs to. */
  news = $state({ into: "", text: "", failed: false });
  /** The conversation in which it is written. */
  #place = "";

  /** Opens a new chat, and writes a summary of the open one into its draft. */
  async begin(): Promise<void> {
    if (this.job) return;
    const of = chats.open;
    await chats.begin();
    const into = chats.open.id;
    if (!into || into === of.id) return;
    chats.prefer(of.choices);
    if (of.system && !chats.system) chats.instructed(of.system);
    this.news = { into: "", text: "", failed: false };
    this.job = { of, into, title: of.title || words.newChat, text: "", status: null };
    const job = this.job;
    try {
      await this.#write(job);
    } catch (thrown) {
      this.#failed(job, why(thrown));
    }
  }

  /** Throws away what is written of it. */
  async cancel(): Promise<void> {
    this.job = undefined;
    await this.#clean();
  }

  async #write(job: Job): Promise<void> {
    const { context_tokens, context_limit } = job.of.messages.filter(({ computed }) => computed?.context_tokens).at(-1)?.computed ?? {};
    const limit = context_limit ?? 0;
    let problem = words.nothingSaid;
    for (let attempt = 0, share = 1; attempt < ATTEMPTS; attempt++, share *= LESS) {
      const of = transcript(job.of.messages, context_tokens ?? limit, limit, share);
      const ended = await this.#ask(job, of, limit);
      // It was cancelled, or another was begun.
      if (this.job !== job) return;
      await this.#clean();
      const text = said(ended.text);
      if (text) return this.#done(job, text, of);
      problem = ended.problem ?? words.nothingSaid;
    }
    this.#failed(job, problem);
  }

  /** Asks the model; resolves at the end of its answer. */
  async #ask(job: Job, of: Transcript, limit: number): Promise<{ text: string; problem: string | null }> {
    const { id } = await api.post<Conversation>("/conversations?fresh=true");
    this.#place = id;
    await api.post(`/conversations/${id}/choices`, { ...job.of.choices, max_tokens: summaryTokens(limit) });
    // A preset for new chats is not for this one.
    await api.post(`/conversations/${id}/instructions`, { instructions: "" });
    await api.post(`/conversations/${id}/ask`, { text: summaryRequest(job.title, of) });
    await api.post(`/conversations/${id}/rename`, { title: words.summaryOf(job.title) });
    await api.post(`/conversations/${id}/archive`, { on: true });
    return new Promise((ended, refused) => {
      const take = (event: ChatEvent): void => {
        if (event.kind === "text") job.text += event.text;
        if (event.kind === "status") job.status = event.status;
        if (event.kind === "deleted") ended({ text: "", problem: null });
        if (event.kind !== "whole") return;
        const last = event.conversation.messages.at(-1);
        job.text = last?.role === "assistant" ? last.text : "";
        if (event.answering === null) ended({ text: job.text, problem: event.problem });
      };
      api.follow<ChatEvent>("summary", `/conversations/${id}/events`, take).catch(refused);
    });
  }

  async #clean(): Promise<void> {
    const id = this.#place;
    this.#place = "";
    // Its answer is stopped first, if it is not done.
    if (id) await api.delete(`/conversations/${id}`).catch(() => {});
  }

  async #done(job: Job, text: string, { used, of }: Transcript): Promise<void> {
    const file = { name: words.summaryOf(job.title), text };
    const add = (draft: string): string => {
      const before = parse(draft);
      return compose(before.text, [...before.files, file]);
    };
    if (chats.open.id === job.into) {
      chats.drafted(add(chats.draft));
    } else {
      const { draft } = await api.get<Conversation>(`/conversations/${job.into}`);
      await api.post(`/conversations/${job.into}/draft`, { draft: add(draft) });
    }
    this.job = undefined;
    const part = used < of ? `${words.summaryOfNewest(used, of)} ` : "";
    this.news = { into: job.into, text: part + words.summaryReady, failed: false };
  }

  #failed(job: Job, problem: string): void {
    if (this.job !== job) return;
    this.job = undefined;
    void this.#clean();
    this.news = { into: job.into, text: words.noSummary(problem), failed: true };
  }
}

export const summary = new Summary();
