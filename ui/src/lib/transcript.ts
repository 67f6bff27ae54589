/** A conversation as a text that a model is asked to summarise: as much of it as the model reads at once. */

import { compose, estimateTokens } from "./attachments";
import type { Message } from "./conversation";
import { parts } from "./thoughts";

/** The model's task, after the transcript. */
const REQUEST =
  "Summarize the chat above for whoever continues it: its subject, what was asked, found and decided, names, numbers and code that matter, and what is still open. Write in the language of the chat, at most 300 words. Reply with the summary only.";

/** Tokens that the request and the model's own frame take. */
const FRAME_TOKENS = 250;

/** An estimate may fall short by this much. */
const MARGIN = 0.95;

/** Fewer tokens than this of a message say nothing. */
const LEAST_TOKENS = 50;

export interface Transcript {
  text: string;
  /** How many of the newest messages are in it whole. */
  used: number;
  of: number;
}

/** The text of an answer, without thoughts. */
export const said = (answer: string): string =>
  parts(answer, false)
    .filter(({ thought }) => !thought)
    .map(({ text }) => text)
    .join("")
    .trim();

const turn = ({ role, text }: Message): string => (role === "user" ? `User: ${text}` : `Assistant: ${said(text)}`);

/** The length of a summary that a model with this context may write, in tokens. */
export const summaryTokens = (limit: number): number => Math.min(700, Math.floor(limit / 6));

/**
 * The newest messages that fit into `share` of a model's context: `limit` tokens, of which the whole conversation
 * takes `used`. An answer is not divided, only a last message that alone is too long: its end is taken.
 */
export function transcript(messages: Message[], used: number, limit: number, share = 1): Transcript {
  const turns = messages.filter(({ text }) => text.trim()).map(turn);
  const room = (limit - summaryTokens(limit) - FRAME_TOKENS) * share;
  if (used <= room) return { text: turns.join("\n\n"), used: turns.length, of: turns.length };
  const estimates = turns.map(estimateTokens);
  const all = estimates.reduce((sum, tokens) => sum + tokens, 0);
  // The whole conversation was counted; that says how far the estimates are off.
  const scale = Math.max(used / Math.max(all, 1), 0.5);
  let left = (room * MARGIN) / scale;
  let first = turns.length;
  while (first > 0 && estimates[first - 1]! <= left) left -= estimates[--first]!;
  const whole = turns.slice(first);
  if (whole.length > 0) return { text: whole.join("\n\n"), used: whole.length, of: turns.length };
  const last = turns.at(-1) ?? "";
  const letters = Math.floor(last.length * (Math.max(left, LEAST_TOKENS) / Math.max(estimates.at(-1) ?? 1, 1)));
  return { text: last.slice(-letters), used: 0, of: turns.length };
}

/** The message that asks for a summary. */
export const summaryRequest = (title: string, { text }: Transcript): string => compose(REQUEST, [{ name: title, text }]);
