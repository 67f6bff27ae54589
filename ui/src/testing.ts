/** What the tests of pages share: a snapshot, settings, and the app's stubbed replies. */
import { mockIPC } from "@tauri-apps/api/mocks";
import axe from "axe-core";

import type { Changed, Fit, Preferences, Snapshot } from "./lib/bindings";
import type { CatalogueModel, CatalogueVariant, ModelOnDisk, PlanView } from "./lib/node";
import { type Given, named } from "./testing/requests";

export const shown: Snapshot = {
  name: "Studio",
  fingerprint: "otter lamp river",
  state: "sharing",
  share: true,
  paused: false,
  line: "Sharing · no other machines yet",
  memory: { total: 24e9, taken: 5e9, sharing: true, offered: 12e9, held: 4e9, cap: null, recommended: 18e9 },
  pool_bytes: 12e9,
  machines: [],
  requests: [],
  found: [],
  model: null,
  answered_tokens: 0,
  loads: [],
  discovery: null,
  update: { kind: "unknown" },
  notify: null,
  accent: "honey",
  look: "automatic",
  language: "en",
};

export const preferences: Preferences = {
  name: null,
  memory_bytes: null,
  disk_bytes: null,
  only_on_power: false,
  only_when_idle_minutes: null,
  unload_after_idle_minutes: null,
  bandwidth_mbit_per_s: null,
  download_mbit_per_s: null,
  lan_only: false,
  relay: null,
  api: null,
  bind: null,
  browser: "off",
  notify: false,
  accent: "honey",
  look: "automatic",
  language: null,
  model: null,
  quick_ask: null,
  open_at_login: false,
  restart: [],
};

export const planned: PlanView = {
  model: "Llama",
  layers: 18,
  stages: [{ node: "Studio", layers: [0, 18], weight_bytes: 5.9e9, kv_bytes: 1e8, base_bytes: 0 }],
  reasons: [],
  because: [],
  decode_tokens_per_s: 20,
};

/** A size of a model in the catalogue. */
export const variant = (model: string, bytes: number, fit: Fit | null, more: Partial<CatalogueVariant> = {}): CatalogueVariant => ({
  model,
  quantization: "4-bit",
  bits_per_weight: 4.5,
  bytes,
  approximate: false,
  on_disk: false,
  loaded: false,
  fits: fit ? [{ context: 4096, fit, machines: [], room_tokens: 8000, decode_tokens_per_s: null }] : [],
  ...more,
});

/** A model in the catalogue. */
export const catalogueModel = (name: string, variants: CatalogueVariant[], more: Partial<CatalogueModel> = {}): CatalogueModel => ({
  name,
  family: "qwen3",
  parameters: 8e9,
  active_parameters: null,
  context: 40_960,
  licence: "Apache-2.0",
  good_at: ["chat"],
  tools: false,
  thinking: false,
  images: false,
  variants,
  ...more,
});

export const onDisk = (name: string, more: Partial<ModelOnDisk> = {}): ModelOnDisk => ({
  name,
  bytes: 4e9,
  whole_bytes: null,
  loaded: false,
  pinned: false,
  aliases: [],
  adapted: [],
  removable: true,
  in_place: false,
  also_on: [],
  lacking: [],
  unusable: null,
  ...more,
});

/** The app behind the pages. */
export class Backend {
  /** Commands sent to it, and requests to its node. */
  asked: [string, Given][] = [];
  /** Its replies. */
  answers: Record<string, (given: Given) => unknown> = {
    preferences: () => preferences,
    change: () => ({ preferences, refused: null }) satisfies Changed,
    programs: () => ({ url: "http://127.0.0.1:4483", off: null, tokens: [] }),
    about: () => ({ version: "0.1.0", web_view: "2.44", system: "linux x86_64", folder: "/home/me/.local/share/hivemind" }),
    "GET /models": () => [onDisk("Llama"), onDisk("Qwen")],
    "GET /plan": () => planned,
    "GET /catalogue": () => ({ models: [], problem: null }),
  };

  constructor() {
    mockIPC((command, given) => {
      if (command !== "request") return this.#answer(command, given as Given) ?? null;
      return JSON.stringify(this.#answer(...named(given as never)) ?? { done: true });
    });
  }

  #answer(command: string, given: Given): unknown {
    this.asked.push([command, given]);
    return this.answers[command]?.(given);
  }

  /** What a command was given, each time. */
  of(command: string): Given[] {
    return this.asked.filter(([name]) => name === command).map(([, given]) => given);
  }
}

/** Accessibility violations. Contrast is tested in tokens.test.ts, which has the colours. */
export async function barriers(): Promise<string[]> {
  const found = await axe.run(document.body, { rules: { "color-contrast": { enabled: false }, region: { enabled: false } } });
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
}
