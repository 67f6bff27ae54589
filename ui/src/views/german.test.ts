/** Every page in German, without an English word left on it. */
import { mockIPC } from "@tauri-apps/api/mocks";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/svelte";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import App from "../App.svelte";
import type { Cause, Machine, Remedy, Snapshot } from "../lib/bindings";
import { chats } from "../lib/chats.svelte";
import { settings } from "../lib/preferences.svelte";
import { english, speak } from "../lib/words";
import { german } from "../lib/words.de";
import { barriers, onDisk, planned, preferences, shown as alone } from "../testing";
import { FakeNode, message } from "../testing/node";
import { type Given, named } from "../testing/requests";
import Main from "./Main.svelte";
import Popover from "./Popover.svelte";
import StartFailure from "./StartFailure.svelte";

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
  today: { answers: 2, tokens: 340 },
  chip: "M3",
  offered: 12e9,
  layers: [],
  copies: [],
  tokens_per_s: 20,
  link: null,
  other_links: [],
  rights: null,
  ...more,
});

const shown: Snapshot = {
  ...alone,
  line: "Freigegeben · 2 Rechner",
  state: "attention",
  language: "de",
  machines: [
    machine({ own: true, layers: [[0, 18]] }),
    machine({
      id: "two",
      name: "Mini",
      code: "482 915",
      layers: [[18, 30]],
      copies: [[0, 1]],
      rights: { memory: true, prompts: true, memory_limit: 4e9, session_limit: 2 },
      link: { kind: "Thunderbolt", round_trip_ms: 0.3, bits_per_s: 2e10 },
      other_links: [{ kind: "WLAN", round_trip_ms: 4, bits_per_s: 3e8 }],
    }),
    machine({ id: "three", name: "Dachboden", here: false, sharing: false, why: "antwortet nicht", away_since_s: 1_764_000_000 }),
  ],
  requests: [
    { id: "four", name: "Küche", fingerprint: "a b c", code: "482 915", approved_here: false, asked_by_them: true },
    { id: "six", name: "Bad", fingerprint: "a b d", code: "111 222", approved_here: true, asked_by_them: false },
  ],
  found: [{ id: "five", name: "Keller", fingerprint: "d e f" }],
  model: { name: "Llama", bytes: 6e9, stages: [{ machine: "Studio", layers: [0, 18] }, { machine: "Mini", layers: [18, 30] }] },
};

/** What stands in both languages, and what machines, models and programs are called here. */
const NAMES = /^(HiveMind|Studio|Mini|Llama|Qwen|M3|Thunderbolt|WLAN|otter lamp river|a b c|a b d|d e f|editor|English)$/;

/** Words that only English has. */
const ENGLISH = /\b(the|and|of|your|you|is|are|this|machine|machines|memory|with|shares?|sharing|layers?|tokens|models?|settings|search|use[sd]?|never|today|away|since|any|off|open|close)\b/i;

/** All strings of a language. */
function strings(entry: unknown): string[] {
  if (typeof entry === "string") return [entry];
  return typeof entry === "object" && entry !== null ? Object.values(entry).flatMap(strings) : [];
}

const inGerman = new Set(strings(german));
const onlyEnglish = new Set(strings(english).filter((text) => !inGerman.has(text)));

/** What a person reads, hears, or sees in a field, that is English. */
function left(): string[] {
  const found: string[] = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (!node.parentElement?.closest("style, script, code, pre, .body, .folder, bdi")) found.push(node.textContent ?? "");
  }
  for (const element of document.querySelectorAll("*")) {
    for (const name of ["aria-label", "title", "placeholder", "aria-valuetext", "alt"]) found.push(element.getAttribute(name) ?? "");
  }
  return found.map((text) => text.trim()).filter((text) => text && !NAMES.test(text) && (onlyEnglish.has(text) || ENGLISH.test(text)));
}

let node: FakeNode;
let answers: Record<string, (given: Given) => unknown>;

beforeEach(async () => {
  node = new FakeNode();
  answers = {
    preferences: () => ({ ...preferences, language: "de", memory_bytes: 8.6e9, relay: "https://relay.example.org", restart: ["name", "memory"] }),
    change: () => ({ preferences: { ...preferences, language: "de" }, refused: null }),
    programs: () => ({ url: "http://127.0.0.1:4483", off: null, tokens: [{ name: "editor", used_days_ago: 3 }, { name: "Llama", used_days_ago: null }] }),
    about: () => ({ version: "0.1.0", web_view: "2.44", system: "linux x86_64", folder: "/home/me" }),
    "GET /models": () => [onDisk("Llama", { loaded: true }), onDisk("Qwen", { also_on: ["Mini"] }), onDisk("M3", { unusable: "kaputt" })],
    "GET /plan": () => ({
      ...planned,
      reasons: ["Too big for any one machine.", "Attic does not have the model"],
      because: [{ kind: "too_big_for_one" }, { kind: "no_model", machine: "Attic" }],
    }),
    "GET /log": () => ({
      entries: [
        { at: "2026-11-27T13:02:00Z", event: "started", version: "0.1.0", text: "HiveMind 0.1.0 started" },
        { at: "2026-11-27T13:03:00Z", event: "invited", valid_for_s: 86_400, text: "an invitation was made, valid for 24 h" },
      ],
    }),
    "GET /catalogue": () => ({ models: [], problem: null }),
  };
  mockIPC((command, given) => {
    if (command === "follow") return node.follow(given as never);
    if (command !== "request") return answers[command]?.(given as Given) ?? null;
    if (/\/(conversations|presets|prompts|titles)/.test((given as { path: string }).path)) return node.request(given as never);
    const [name, asked] = named(given as never);
    return JSON.stringify(answers[name]?.(asked) ?? { done: true });
  });
  Element.prototype.scrollTo ??= () => {};
  Element.prototype.scrollIntoView ??= () => {};
  HTMLDialogElement.prototype.showModal ??= function (this: HTMLDialogElement) {
    this.open = true;
  };
  HTMLDialogElement.prototype.close ??= function (this: HTMLDialogElement) {
    this.open = false;
  };
  history.replaceState(null, "", "#");
  localStorage.clear();
  chats.reset();
  await speak("de");
});

afterEach(async () => {
  cleanup();
  settings.refused = {};
  settings.typed = {};
  await speak("en");
});

const go = (key: string) => fireEvent.keyDown(window, { key, ctrlKey: true });

describe("in German", () => {
  it("the test knows English", async () => {
    await speak("en");
    render(Main, { shown: { ...shown, language: "en" } });
    await screen.findByText("Welcome to HiveMind");
    expect(left().length).toBeGreaterThan(20);
  });

  it("the chat welcomes, and asks", async () => {
    render(Main, { shown });
    expect(await screen.findByText("Willkommen bei HiveMind")).toBeTruthy();
    await fireEvent.click(screen.getByLabelText("Anweisungen und Sampling"));
    await fireEvent.input(screen.getByLabelText("Nachricht …"), { target: { value: "Wort ".repeat(400) } });
    expect(left()).toEqual([]);
    expect(await barriers()).toEqual([]);
  });

  it("a chat shows its answers, its branches and the list", async () => {
    const trouble = { kind: "lost", machine: "Studio", loss: "left" } as const;
    const parts = [{ machines: ["Studio"], tokens: 12, after: null }, { machines: ["Mini"], tokens: 3, after: { why: "Studio left; continuing without it", trouble, pause_s: 1.7 } }];
    const computed = { tokens_per_s: 7.25, first_s: 0.4, parts, unknown_options: ["tief"], context_tokens: 900, context_limit: 1000 };
    node.add("c", "Lissabon", [
      message({ id: "q", role: "user", text: "Wo?", branches: ["q", "r"] }),
      message({ id: "a", text: "Dort.", complete: false, note: "Strom weg", computed }),
    ]);
    render(Main, { shown });
    await fireEvent.click(await screen.findByTitle("Lissabon"));
    expect(await screen.findByText(/7,3 tok\/s · Studio \+ Mini · erstes Wort: 0,4 s/)).toBeTruthy();
    expect(screen.getByLabelText("Löschen: Lissabon")).toBeTruthy();
    expect(screen.getByLabelText(/Studio ist gegangen; weiter ohne diesen Rechner; 1,7/)).toBeTruthy();
    node.answering.set("c", "a");
    node.whole("c");
    node.status("c", { kind: "recovering", why: "Mini has not answered for 3 s; checking", trouble: { kind: "not_answering", machines: ["Mini"], seconds: 3 } });
    expect(await screen.findByText("Mini antwortet seit 3 s nicht; wird geprüft")).toBeTruthy();
    expect(left()).toEqual([]);
  });

  it("dialogs list shortcuts, and jump", async () => {
    render(Main, { shown });
    await go("/");
    expect(await screen.findByText("Strg+N")).toBeTruthy();
    expect(left()).toEqual([]);
    await fireEvent.click(screen.getByText("Schließen"));
    await go("k");
    expect(await screen.findByPlaceholderText("Chat, Seite oder Wörter")).toBeTruthy();
    expect(left()).toEqual([]);
  });

  it("machines say what they do", async () => {
    render(Main, { shown });
    await go("2");
    await fireEvent.click(await screen.findByTitle("Mini"));
    expect(await screen.findByText("2 Antworten, 340 Token")).toBeTruthy();
    expect(await screen.findByText("Zu groß für einen einzelnen Rechner.")).toBeTruthy();
    expect(await screen.findByText("Einladung erstellt, gültig für 24 h")).toBeTruthy();
    expect(left()).toEqual([]);
    await fireEvent.click(screen.getByText("Entfernen …"));
    expect(left()).toEqual([]);
  });

  it("models say what they take, and which could be fetched", async () => {
    const fits = [{ context: 4096, fit: { verdict: "needs_more", bytes: 4e9, advice: "mehr freigeben" }, machines: [], room_tokens: 0, decode_tokens_per_s: 7 }];
    const variants = ["3-bit", "4-bit"].map((quantization) => ({ model: `o/${quantization}`, quantization, bytes: 4e9, approximate: true, fits }));
    const skills = Object.keys(english.skills);
    answers["GET /catalogue"] = () => ({
      models: [{ name: "Phi", parameters: 3e10, active_parameters: 3e9, context: 4096, licence: "MIT", good_at: skills, variants }],
      problem: null,
    });
    render(Main, { shown });
    await go("3");
    expect(await screen.findByText("Belegt 6,0 GB Speicher")).toBeTruthy();
    expect(await screen.findByRole("button", { name: "Trotzdem holen: Phi, 3-bit" })).toBeTruthy();
    expect(left()).toEqual([]);
  });

  it("settings are labelled, refused and reset", async () => {
    settings.refused = { only_when_idle_minutes: { kind: "whole", least: 1, most: 1440 } };
    render(Main, { shown });
    await go("4");
    expect(await screen.findByText("Bitte eine ganze Zahl von 1 bis 1.440 eingeben.")).toBeTruthy();
    const memory = screen.getByLabelText<HTMLInputElement>("Höchstens freigeben");
    expect(memory.value).toBe("8,6");
    await fireEvent.input(memory, { target: { value: "1,5" } });
    expect(settings.typed.memory).toBe("1.5 GB");
    await fireEvent.click(screen.getByText("Zurücksetzen …"));
    expect(left()).toEqual([]);
    expect(await barriers()).toEqual([]);
  });

  it("the popover is, too", async () => {
    render(Popover, { shown });
    expect(await screen.findByText("Küche möchte beitreten")).toBeTruthy();
    expect(left()).toEqual([]);
    cleanup();
    render(Popover, { shown: { ...shown, model: null, requests: [], memory: { ...shown.memory, sharing: false } } });
    expect(left()).toEqual([]);
  });

  it.each<Cause>([
    { kind: "in_use", by: "hivemind", process: 7 },
    { kind: "in_use", by: "hivemind", process: null },
    { kind: "not_writable", path: "/data", why: "schreibgeschützt" },
    { kind: "full", path: "/data" },
    { kind: "damaged", file: "config.toml", why: "kaputt" },
    { kind: "newer", file: "peers.json" },
    { kind: "port", why: "belegt" },
    { kind: "other", why: "kaputt", hint: null },
  ])("a start that failed says why: $kind", (cause) => {
    const remedies: Remedy[] = ["try_again", "stop_other", "use_another_port", "move_aside", "open_folder", "quit"];
    render(StartFailure, { failure: { cause, remedies, language: "de" } });
    expect(left()).toEqual([]);
  });
});

describe("a window", () => {
  let send: (shown: Snapshot) => void;

  beforeEach(async () => {
    await speak("en");
    answers.watch = ({ snapshots }) => void (send = (shown) => (snapshots as { onmessage: (shown: Snapshot) => void }).onmessage(shown));
    history.replaceState(null, "", "#settings");
  });

  it("is drawn in the app's language, and redrawn when that changes, on the same page", async () => {
    render(App);
    await waitFor(() => expect(send).toBeTruthy());
    send(shown);
    expect(await screen.findByRole("heading", { name: "Einstellungen" })).toBeTruthy();
    expect(document.documentElement.lang).toBe("de");
    expect(left()).toEqual([]);
    send({ ...shown, language: "en" });
    expect(await screen.findByRole("heading", { name: "Settings" })).toBeTruthy();
    expect(document.documentElement.lang).toBe("en");
  });

  it("takes a language from its settings, or the system's", async () => {
    const asked: Given[] = [];
    answers.change = (given) => {
      asked.push(given);
      return { preferences: { ...preferences, language: null }, refused: null };
    };
    render(App);
    await waitFor(() => expect(send).toBeTruthy());
    send(shown);
    const choice = await screen.findByLabelText<HTMLSelectElement>("Sprache");
    expect([...choice.options].map(({ value, text }) => [value, text])).toEqual([["", "Automatisch"], ["en", "English"], ["de", "Deutsch"]]);
    await fireEvent.change(choice, { target: { value: "en" } });
    await fireEvent.change(choice, { target: { value: "" } });
    await waitFor(() => expect(asked.map(({ change }) => change)).toEqual([{ field: "language", value: "en" }, { field: "language", value: null }]));
    send({ ...shown, language: "en" });
    // The focus stays where it was.
    await waitFor(() => expect(document.activeElement?.id).toBe("language"));
  });
});
