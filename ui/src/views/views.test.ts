import { mockIPC } from "@tauri-apps/api/mocks";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/svelte";
import axe from "axe-core";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { Machine, News, Snapshot } from "../lib/bindings";
import { chats } from "../lib/chats.svelte";
import Main from "./Main.svelte";
import Popover from "./Popover.svelte";

const machine = (more: Partial<Machine>): Machine => ({
  id: "one",
  name: "Studio",
  fingerprint: "otter lamp river",
  own: false,
  here: true,
  sharing: true,
  why: null,
  chip: "Apple M3",
  offered: 12e9,
  layers: null,
  copies: null,
  tokens_per_s: null,
  link: null,
  ...more,
});

const shown: Snapshot = {
  name: "Studio",
  fingerprint: "otter lamp river",
  state: "attention",
  share: true,
  paused: false,
  line: "Sharing · 2 machines",
  memory: { total: 24e9, offered: 12e9, held: 4e9, cap: 16e9, recommended: 18e9 },
  pool_bytes: 28e9,
  machines: [
    machine({ own: true, layers: [0, 18] }),
    machine({ id: "two", name: "Mac mini", layers: [18, 30], link: { kind: "Thunderbolt", round_trip_ms: 0.3, bits_per_s: 2e10 } }),
    machine({ id: "three", name: "Attic", here: false, sharing: false, why: "it does not answer" }),
  ],
  requests: [
    { id: "four", name: "Kitchen", fingerprint: "a b c", code: "482 915", approved_here: false, asked_by_them: true },
  ],
  found: [{ id: "five", name: "Cellar", fingerprint: "d e f" }],
  model: { name: "Llama", stages: [{ machine: "Studio", layers: [0, 18] }, { machine: "Mac mini", layers: [18, 30] }] },
  answered_tokens: 0,
  discovery: null,
};

/** What was asked of the app, and what it answers. */
let asked: [string, Record<string, unknown>][] = [];
let answers: Record<string, (given: Record<string, unknown>) => unknown> = {};

beforeEach(() => {
  asked = [];
  answers = {
    list_conversations: () => [{ id: "c", title: "Lisbon", updated_s: Date.now() / 1000 }],
    list_models: () => ["Llama", "Qwen"],
    plan: () => ({ model: "Llama", stages: ["Studio: layers 1 to 18, 4.1 GB"], reasons: ["It fits."], tokens_per_s: 20 }),
    preferences: () => ({
      name: null,
      only_on_power: false,
      only_when_idle_minutes: null,
      lan_only: false,
      relay: null,
      open_at_login: false,
    }),
  };
  mockIPC((command, given) => {
    asked.push([command, given as Record<string, unknown>]);
    return answers[command]?.(given as Record<string, unknown>) ?? null;
  });
  Element.prototype.scrollTo ??= () => {};
  history.replaceState(null, "", "#");
  chats.begin();
  chats.busy = undefined;
});

afterEach(cleanup);

/** What keeps people from using it. Contrast is checked where there are colours: in tokens.test.ts. */
async function barriers(): Promise<string[]> {
  const found = await axe.run(document.body, { rules: { "color-contrast": { enabled: false }, region: { enabled: false } } });
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
}

describe("the popover", () => {
  it("can be used by everybody", async () => {
    render(Popover, { shown });
    expect(await barriers()).toEqual([]);
  });

  it("approves by the code that is shown", async () => {
    render(Popover, { shown });
    expect(screen.getByText("482 915")).toBeTruthy();
    await fireEvent.click(screen.getByRole("button", { name: "Approve" }));
    expect(asked).toContainEqual(["approve", { machine: "four", code: "482 915" }]);
  });

  it("says what went wrong with a request", async () => {
    answers.deny = () => {
      throw { code: "not_denied", message: "Kitchen has gone", hint: null };
    };
    render(Popover, { shown });
    await fireEvent.click(screen.getByRole("button", { name: "Deny" }));
    await waitFor(() => expect(screen.getByRole("alert").textContent).toBe("Kitchen has gone"));
  });

  it("switches sharing, and closes with Escape", async () => {
    render(Popover, { shown });
    await fireEvent.click(screen.getByRole("switch"));
    await fireEvent.keyDown(window, { key: "Escape" });
    expect(asked).toContainEqual(["share", { on: false }]);
    expect(asked.map(([command]) => command)).toContain("hide");
  });

  it("gives what the slider says, and everything at its end", async () => {
    render(Popover, { shown });
    const slider = screen.getByRole("slider");
    await fireEvent.change(slider, { target: { value: String(8 * 2 ** 30) } });
    await fireEvent.change(slider, { target: { value: String(24e9) } });
    const given = asked.filter(([command]) => command === "give_memory").map(([, { bytes }]) => bytes);
    expect(given[0]).toBeGreaterThan(7 * 2 ** 30);
    expect(given[1]).toBeNull();
  });
});

describe("the main window", () => {
  it.each(["Chat", "Machines", "Models", "Settings"])("can be used by everybody: %s", async (view) => {
    render(Main, { shown });
    await fireEvent.click(screen.getByRole("button", { name: new RegExp(`^${view}`) }));
    await waitFor(() => expect(document.querySelector("h1")).toBeTruthy());
    expect(await barriers()).toEqual([]);
  });

  it("is all reached by the keyboard", async () => {
    render(Main, { shown });
    await fireEvent.keyDown(window, { key: "2", ctrlKey: true });
    expect(screen.getByText("Why this plan")).toBeTruthy();
    await fireEvent.keyDown(window, { key: ",", metaKey: true });
    expect(screen.getByText("Pause sharing")).toBeTruthy();
  });
});

describe("a conversation", () => {
  /** Answers every question with what is given. */
  function answerWith(...news: News[]): void {
    answers.ask = (given) => {
      const channel = given.news as { onmessage: (news: News) => void };
      for (const event of news) channel.onmessage(event);
      return null;
    };
  }

  async function ask(text: string): Promise<void> {
    const field = screen.getByLabelText("Message…");
    await fireEvent.input(field, { target: { value: text } });
    await fireEvent.keyDown(field, { key: "Enter" });
  }

  it("keeps what came when an answer breaks off, and goes on from its very tokens", async () => {
    answerWith({ kind: "text", text: "Half an ans", tokens: [5, 6] }, { kind: "failed", why: "nobody is left" });
    render(Main, { shown });
    await ask("Tell me");
    await waitFor(() => expect(screen.getByRole("alert").textContent).toContain("nobody is left"));
    answerWith({ kind: "done", text: "wer.", tokens: [5, 6, 7], tokens_per_s: 9, first_s: 0.1, machines: ["Studio"], cut: false });
    await fireEvent.click(await screen.findByRole("button", { name: "Continue" }));
    await waitFor(() => expect(screen.getByText("Half an answer.", { selector: ".body p" })).toBeTruthy());
    const [, again] = asked.filter(([command]) => command === "ask");
    expect((again?.[1].question as { said: number[] }).said).toEqual([5, 6]);
    expect(screen.queryByRole("button", { name: "Continue" })).toBeNull();
    await waitFor(() => {
      const kept = asked.filter(([command]) => command === "keep_conversation").at(-1)?.[1].conversation;
      expect(kept).toMatchObject({ title: "Tell me", messages: [{ text: "Tell me" }, { text: "Half an answer.", complete: true }] });
    });
  });

  it("says quietly that a machine left, until text flows again", async () => {
    let channel: { onmessage: (news: News) => void } | undefined;
    answers.ask = (given) => new Promise(() => (channel = given.news as typeof channel));
    render(Main, { shown });
    await ask("Tell me");
    await waitFor(() => expect(channel).toBeTruthy());
    channel?.onmessage({ kind: "status", text: "Mac mini left; going on without it" });
    await waitFor(() => expect(screen.getByText("Mac mini left; going on without it")).toBeTruthy());
    expect(screen.queryByRole("alert")).toBeNull();
    channel?.onmessage({ kind: "text", text: "Here", tokens: [1] });
    await waitFor(() => expect(screen.queryByText("Mac mini left; going on without it")).toBeNull());
  });

  it("stops with Escape", async () => {
    answers.ask = () => new Promise(() => {});
    render(Main, { shown });
    await ask("Tell me");
    await waitFor(() => expect(screen.getByRole("button", { name: "Stop" })).toBeTruthy());
    await fireEvent.keyDown(window, { key: "Escape" });
    expect(asked.map(([command]) => command)).toContain("stop");
  });

  it("refuses a paste that no model could read, and says so", async () => {
    vi.stubGlobal("ClipboardEvent", Event);
    render(Main, { shown });
    const paste = new Event("paste", { bubbles: true, cancelable: true });
    Object.assign(paste, { clipboardData: { getData: () => "x".repeat(1_000_000) } });
    await fireEvent(screen.getByLabelText("Message…"), paste);
    expect(paste.defaultPrevented).toBe(true);
    expect(screen.getByRole("alert").textContent).toContain("more than a model can read");
  });
});
