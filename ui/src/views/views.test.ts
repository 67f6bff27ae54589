import { mockIPC } from "@tauri-apps/api/mocks";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/svelte";
import axe from "axe-core";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { Machine, Snapshot } from "../lib/bindings";
import { chats } from "../lib/chats.svelte";
import { invitation } from "../lib/invitation.svelte";
import type { LogLine } from "../lib/node";
import { swarm } from "../lib/swarm.svelte";
import { onDisk, planned } from "../testing";
import { FakeNode, message } from "../testing/node";
import { type Given, named } from "../testing/requests";
import { day } from "../lib/words";
import Main from "./Main.svelte";
import Popover from "./Popover.svelte";

const machine = (more: Partial<Machine>): Machine => ({
  id: "one",
  name: "Studio",
  fingerprint: "otter lamp river",
  code: null,
  own: false,
  here: true,
  sharing: true,
  why: null,
  away_since_s: null,
  today: { answers: 0, tokens: 0 },
  chip: "Apple M3",
  offered: 12e9,
  layers: [],
  copies: [],
  tokens_per_s: null,
  link: null,
  other_links: [],
  rights: null,
  ...more,
});

const shown: Snapshot = {
  name: "Studio",
  fingerprint: "otter lamp river",
  state: "attention",
  share: true,
  paused: false,
  line: "Sharing · 2 machines",
  memory: { total: 24e9, taken: 5e9, sharing: true, offered: 12e9, held: 4e9, cap: 16e9, recommended: 18e9 },
  pool_bytes: 28e9,
  machines: [
    machine({ own: true, layers: [[0, 18]] }),
    machine({
      id: "two",
      name: "Mac mini",
      code: "482 915",
      rights: { memory: true, prompts: true, memory_limit: 4e9, session_limit: null },
      layers: [[18, 30]],
      link: { kind: "Thunderbolt", round_trip_ms: 0.3, bits_per_s: 2e10 },
      other_links: [{ kind: "Wi-Fi", round_trip_ms: 4, bits_per_s: 3e8 }],
    }),
    machine({ id: "three", name: "Attic", here: false, sharing: false, why: "it does not answer" }),
  ],
  requests: [
    { id: "four", name: "Kitchen", fingerprint: "a b c", code: "482 915", approved_here: false, asked_by_them: true },
  ],
  found: [{ id: "five", name: "Cellar", fingerprint: "d e f" }],
  model: { name: "Llama", bytes: 6e9, stages: [{ machine: "Studio", layers: [0, 18] }, { machine: "Mac mini", layers: [18, 30] }] },
  answered_tokens: 0,
  loads: [],
  discovery: null,
  update: { kind: "unknown" },
  notify: null,
  accent: "honey",
  look: "automatic",
  language: "en",
};

/** A log with these lines, newest first. */
const log = (lines: LogLine[]): unknown => ({ entries: [...lines].reverse() });

/** Commands sent to the app, requests to its node, and their stubbed replies. */
let asked: [string, Record<string, unknown>][] = [];
let answers: Record<string, (given: Record<string, unknown>) => unknown> = {};

let node = new FakeNode();

beforeEach(() => {
  node = new FakeNode();
  node.add("c", "Lisbon", [message({ id: "q", role: "user", text: "Where?" })]);
  asked = [];
  answers = {
    follow: (given) => node.follow(given as never),
    "GET /models": () => [onDisk("Llama", { loaded: true, removable: false }), onDisk("Qwen", { also_on: ["Mac mini"] })],
    "GET /log": () => ({ entries: [] }),
    "GET /plan": () => ({ ...planned, reasons: ["It fits."] }),
    "GET /catalogue": () => ({ models: [], problem: null }),
  };
  mockIPC((command, given) => {
    const asks = (command: string, given: Given): unknown => {
      asked.push([command, given]);
      return answers[command]?.(given);
    };
    if (command !== "request") return asks(command, given as Given) ?? null;
    if ((given as { path: string }).path.includes("/conversations")) return node.request(given as never);
    return Promise.resolve(asks(...named(given as never))).then((reply) => JSON.stringify(reply ?? { done: true }));
  });
  Element.prototype.scrollTo ??= () => {};
  history.replaceState(null, "", "#");
  localStorage.clear();
  chats.reset();
  invitation.forget();
});

afterEach(() => {
  cleanup();
  Reflect.deleteProperty(navigator, "clipboard");
  vi.unstubAllGlobals();
});

/** Accessibility violations. Contrast is tested in tokens.test.ts, which has the colours. */
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
    expect(asked).toContainEqual(["POST /peers/four/approve", { code: "482 915" }]);
  });

  it("says what went wrong with a request", async () => {
    answers["POST /peers/four/deny"] = () => {
      throw { code: "not_denied", message: "Kitchen has gone", hint: null };
    };
    render(Popover, { shown });
    await fireEvent.click(screen.getByRole("button", { name: "Deny" }));
    await waitFor(() => expect(screen.getByRole("alert").textContent).toBe("Kitchen has gone"));
  });

  it("asks once whether to notify, when it is first useful", async () => {
    const { rerender } = render(Popover, { shown });
    await fireEvent.click(screen.getByRole("button", { name: "Yes" }));
    expect(asked).toContainEqual(["notify", { wanted: true }]);
    await rerender({ shown: { ...shown, notify: true } });
    expect(screen.queryByRole("button", { name: "Yes" })).toBeNull();
  });

  it("says what the model takes, and what there is", async () => {
    const { rerender } = render(Popover, { shown });
    expect(screen.getByText("Uses 6.0 GB; 28.0 GB available on 2 machines")).toBeTruthy();
    await rerender({ shown: { ...shown, model: null, loads: [{ name: "Llama", layers: 3, of: 30, fetched: 0, fetching: 0 }] } });
    expect(screen.getByText(/3 of 30 layers/)).toBeTruthy();
  });

  it("says how fast answers come now, also beside the machines that compute them", async () => {
    render(Popover, { shown });
    expect(document.body.textContent).not.toContain("43 tok/s");
    swarm.speeds = [...swarm.speeds.slice(1), 43];
    await waitFor(() => expect(screen.getByText(/layers 1–18 · 12.0 GB · 43 tok\/s/)).toBeTruthy());
    expect(document.querySelector("header")?.textContent).toContain("Sharing · 2 machines · 43 tok/s");
    swarm.speeds = [...swarm.speeds.slice(1), 0];
  });

  it("switches sharing, and closes with Escape", async () => {
    render(Popover, { shown });
    await fireEvent.click(screen.getByRole("switch"));
    await fireEvent.keyDown(window, { key: "Escape" });
    expect(asked).toContainEqual(["POST /sharing", { share: false }]);
    expect(asked.map(([command]) => command)).toContain("hide");
  });

  it("divides this machine's memory into the model, what is given, what is free, and the rest", () => {
    render(Popover, { shown });
    const parts = [...document.querySelectorAll<HTMLElement>(".track span")];
    // Of 24 GB, the model uses 4, another 12 are shared, the system uses 5, and 3 are free.
    expect(parts.map((part) => parseFloat(part.style.width))).toEqual([16.67, 50, 20.83]);
    expect(document.querySelector(".key")?.textContent).toContain("system 5.0 GB");
  });

  it("gives what the slider says, and everything at its end", async () => {
    render(Popover, { shown });
    const slider = screen.getByRole("slider");
    await fireEvent.change(slider, { target: { value: String(8 * 2 ** 30) } });
    await fireEvent.change(slider, { target: { value: String(24e9) } });
    const given = asked.filter(([command]) => command === "POST /sharing").map(([, { memory_bytes }]) => memory_bytes);
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
    await fireEvent.keyDown(window, { key: ",", ctrlKey: true });
    expect(screen.getByRole("heading", { name: "Settings" })).toBeTruthy();
  });
});

describe("machines", () => {
  it("say which ways lead to them", async () => {
    render(Main, { shown });
    await fireEvent.keyDown(window, { key: "2", ctrlKey: true });
    await fireEvent.click(document.querySelector('[aria-label^="Mac mini"]')!);
    expect(screen.getByText("Thunderbolt, 0.3 ms, 20.0 Gbit/s")).toBeTruthy();
    expect(screen.getByText("Wi-Fi, 4.0 ms, 300 Mbit/s")).toBeTruthy();
  });

  it("are invited by one invitation, however often it is copied", async () => {
    let minted = 0;
    answers["POST /invites"] = () => ({ ticket: `hivemind-invitation-${++minted}` });
    const written: string[] = [];
    vi.stubGlobal("ClipboardItem", class {
      constructor(public items: Record<string, Promise<Blob>>) {}
    });
    let begun = 0;
    const write = async ([item]: { items: Record<string, Promise<Blob>> }[]): Promise<void> => {
      begun += 1;
      const blob = await item!.items["text/plain"]!;
      const reader = new FileReader();
      const read = new Promise((resolve) => (reader.onload = resolve));
      reader.readAsText(blob);
      await read;
      written.push(String(reader.result));
    };
    Object.defineProperty(navigator, "clipboard", { value: { write }, configurable: true });
    render(Main, { shown });
    await fireEvent.keyDown(window, { key: "2", ctrlKey: true });
    screen.getByRole("button", { name: "Copy invitation" }).click();
    // The write begins within the click, before the invitation arrives; later, browsers refuse it.
    expect(begun).toBe(1);
    await fireEvent.click(await screen.findByRole("button", { name: "Copied" }));
    await waitFor(() => expect(written).toEqual(["hivemind-invitation-1", "hivemind-invitation-1"]));
    expect(screen.queryByLabelText("Your invitation, ready to copy")).toBeNull();
  });

  it("are invited also where the clipboard is closed", async () => {
    answers["POST /invites"] = () => ({ ticket: "hivemind-invitation" });
    render(Main, { shown });
    await fireEvent.keyDown(window, { key: "2", ctrlKey: true });
    await fireEvent.click(screen.getByRole("button", { name: "Copy invitation" }));
    const field = await screen.findByLabelText("Your invitation, ready to copy");
    expect((field as HTMLTextAreaElement).value).toBe("hivemind-invitation");
  });

  it("may do what their owner switches on", async () => {
    render(Main, { shown });
    await fireEvent.keyDown(window, { key: "2", ctrlKey: true });
    await fireEvent.click(document.querySelector('[aria-label^="Mac mini"]')!);
    expect(screen.getByText("At most 4.0 GB here.")).toBeTruthy();
    await fireEvent.click(screen.getByRole("switch", { name: "May see your prompts" }));
    expect(asked).toContainEqual(["POST /peers/two/rights", { memory: true, prompts: false }]);
    await fireEvent.click(screen.getByRole("switch", { name: "May use this machine's memory" }));
    expect(asked).toContainEqual(["POST /peers/two/rights", { memory: false, prompts: true }]);
    await fireEvent.click(document.querySelector('[aria-label^="This machine"]')!);
    expect(screen.queryByRole("switch", { name: "May see your prompts" })).toBeNull();
  });

  it("show the code they were approved with, and what they did here", async () => {
    const at = (day: number, minute: number): string => new Date(2026, 10, day, 14, minute).toISOString();
    answers["GET /log"] = ({ machine }) =>
      log(machine === "two"
        ? [
            { at: at(27, 2), text: "Mac mini loaded layers 1–16 of SmolLM2 (204 MB)" },
            { at: at(27, 1), text: "Mac mini was refused to load layers: this machine was not sharing, 3 times" },
            { at: at(26, 0), text: "Mac mini (otter-lamp-river) was approved, code 482 915" },
          ]
        : [{ at: at(27, 2), text: "HiveMind 0.1.0 started" }]);
    render(Main, { shown });
    await fireEvent.keyDown(window, { key: "2", ctrlKey: true });
    await fireEvent.click(document.querySelector('[aria-label^="Mac mini"]')!);
    expect(screen.getAllByText("482 915").some((text) => text.tagName === "DD")).toBe(true);
    const list = await screen.findByRole("list", { name: day(at(27, 2)) });
    expect([...list.children].map((line) => line.textContent)).toEqual([
      "14:02Mac mini loaded layers 1–16 of SmolLM2 (204 MB)",
      "14:01Mac mini was refused to load layers: this machine was not sharing, 3 times",
    ]);
    expect(screen.getByRole("list", { name: day(at(26, 0)) }).children.length).toBe(1);
    await fireEvent.click(document.querySelector('[aria-label^="This machine"]')!);
    expect(await screen.findByText("HiveMind 0.1.0 started")).toBeTruthy();
    expect(screen.queryByText(/Mac mini loaded/)).toBeNull();
  });
});

describe("what a machine did", () => {
  const at = new Date(2026, 10, 27, 14, 2).toISOString();

  it("is asked for when something happens, and not with every look at the machines", async () => {
    answers["GET /log"] = () => log([{ at, text: "HiveMind 0.1.0 started" }]);
    const { rerender } = render(Main, { shown });
    await fireEvent.keyDown(window, { key: "2", ctrlKey: true });
    await fireEvent.click(document.querySelector('[aria-label^="Mac mini"]')!);
    await screen.findByText("HiveMind 0.1.0 started");
    const times = (): number => asked.filter(([what]) => what === "GET /log").length;
    expect(times()).toBe(1);
    await rerender({ shown: structuredClone(shown) });
    await rerender({ shown: structuredClone(shown) });
    expect(times()).toBe(1);
    const held = structuredClone(shown);
    held.memory.held += 1;
    await rerender({ shown: held });
    expect(times()).toBe(2);
  });

  it("is never shown under another machine's name", async () => {
    answers["GET /log"] = ({ machine }) =>
      machine === "two" ? log([{ at, text: "Mac mini loaded layers" }]) : new Promise(() => undefined);
    render(Main, { shown });
    await fireEvent.keyDown(window, { key: "2", ctrlKey: true });
    await fireEvent.click(document.querySelector('[aria-label^="Mac mini"]')!);
    await screen.findByText("Mac mini loaded layers");
    await fireEvent.click(document.querySelector('[aria-label^="This machine"]')!);
    expect(screen.queryByText("Mac mini loaded layers")).toBeNull();
  });
});
