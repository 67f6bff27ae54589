import { mockIPC } from "@tauri-apps/api/mocks";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { TokenCount } from "./token-count.svelte";

/** Requests that wait for their reply. */
let waiting: { model: string | null; text: string; reply: (tokens: number) => void; refuse: (code: string) => void }[];

beforeEach(() => {
  waiting = [];
  vi.useFakeTimers();
  mockIPC((_, given) => {
    const { model, text } = JSON.parse((given as { body: string }).body) as { model: string | null; text: string };
    return new Promise((done, failed) => {
      const reply = (tokens: number): void => done(JSON.stringify({ model: "m", tokens }));
      waiting.push({ model, text, reply, refuse: (code) => failed({ code, message: code, hint: null } as unknown as Error) });
    });
  });
});
afterEach(() => vi.useRealTimers());

const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

it("asks once, 300 ms after the last letter", async () => {
  const count = new TokenCount();
  for (const text of ["a", "an", "any one"]) {
    count.watch(text, null);
    await pass(299);
  }
  expect(waiting).toEqual([]);
  await pass(1);
  expect(waiting.map(({ model, text }) => [model, text])).toEqual([[null, "any one"]]);
  waiting[0]!.reply(2);
  await pass(0);
  expect(count.tokens).toBe(2);
});

it("drops a reply that comes too late, and asks for one text at a time", async () => {
  const count = new TokenCount();
  count.watch("late one", null);
  await pass(300);
  count.watch("late two", null);
  await pass(300);
  count.watch("late three", "other");
  await pass(300);
  expect(waiting.length).toBe(1);
  waiting[0]!.reply(1);
  await pass(0);
  expect([count.tokens, waiting.length]).toEqual([null, 2]);
  expect([waiting[1]!.model, waiting[1]!.text]).toEqual(["other", "late three"]);
  waiting[1]!.reply(3);
  await pass(0);
  expect(count.tokens).toBe(3);
});

it("does not ask again for known counts, but does for another model", async () => {
  const [first, second] = [new TokenCount(), new TokenCount()];
  first.watch("known", "a");
  await pass(300);
  waiting[0]!.reply(5);
  await pass(0);
  second.watch("known", "a");
  expect(second.tokens).toBe(5);
  second.watch("known", "b");
  expect(second.tokens).toBeNull();
  await pass(300);
  expect(waiting.length).toBe(2);
});

it("waits for a tokenizer that is being read, and gives up in the end; another refusal is final", async () => {
  const count = new TokenCount();
  count.watch("not yet", null);
  await pass(300);
  for (let attempt = 0; attempt < 4; attempt++) {
    waiting.at(-1)!.refuse("tokenizer_not_loaded");
    await pass(2000);
    expect(waiting.length).toBe(attempt + 2);
  }
  waiting.at(-1)!.refuse("tokenizer_not_loaded");
  await pass(60_000);
  expect([waiting.length, count.tokens]).toEqual([5, null]);
  count.watch("broken", null);
  await pass(300);
  waiting.at(-1)!.refuse("model_unusable");
  await pass(60_000);
  expect([waiting.length, count.tokens]).toEqual([6, null]);
});

it("asks nothing once it is stopped, or for nothing", async () => {
  const count = new TokenCount();
  count.watch("gone", null);
  count.stop();
  count.watch("", null);
  await pass(1000);
  expect(waiting).toEqual([]);
});
