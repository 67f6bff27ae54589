import { mockIPC } from "@tauri-apps/api/mocks";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/svelte";
import axe from "axe-core";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { Machine, Snapshot } from "../lib/bindings";
import { invitation } from "../lib/invitation.svelte";
import { removed } from "../lib/removed.svelte";
import { swarm } from "../lib/swarm.svelte";
import { away, moment } from "../lib/words";
import { planned } from "../testing";
import { type Given, named } from "../testing/requests";
import Machines from "./Machines.svelte";
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

const studio = machine({ own: true, layers: [[0, 18]] });
const mini = machine({ id: "two", name: "Mac mini", layers: [[18, 30]], today: { answers: 3, tokens: 1240 } });
const attic = machine({ id: "three", name: "Attic", here: false, sharing: false, offered: 0, why: "it does not answer" });

const shown: Snapshot = {
  name: "Studio",
  fingerprint: "otter lamp river",
  state: "sharing",
  share: true,
  paused: false,
  line: "Sharing · 2 machines",
  memory: { total: 24e9, taken: 5e9, sharing: true, offered: 12e9, held: 4e9, cap: 16e9, recommended: 18e9 },
  pool_bytes: 24e9,
  machines: [studio, mini, attic],
  requests: [],
  found: [],
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

let asked: [string, Record<string, unknown>][] = [];
let answers: Record<string, (given: Record<string, unknown>) => unknown> = {};

beforeEach(() => {
  asked = [];
  answers = { "GET /log": () => ({ entries: [] }), "GET /plan": () => ({ ...planned, stages: [], reasons: ["It fits."] }) };
  mockIPC((command, given) => {
    const [what, values] = command === "request" ? named(given as never) : [command, given as Given];
    asked.push([what, values]);
    const reply = answers[what]?.(values);
    return command === "request" ? JSON.stringify(reply ?? { done: true }) : (reply ?? null);
  });
  invitation.forget();
  removed.dismiss();
});

afterEach(() => {
  cleanup();
  vi.useRealTimers();
  Reflect.deleteProperty(navigator, "clipboard");
  vi.unstubAllGlobals();
});

const commandsAsked = (): string[] => asked.map(([command]) => command);
const hexagonOf = (name: string): HTMLElement => screen.getByRole("button", { name: new RegExp(`^${name}: `) });

describe("a machine that is away", () => {
  const at = (day: number, hour: number): number => new Date(2026, 10, day, hour, 2).getTime() / 1000;
  const now = at(27, 18);

  it("says since when, as near as it needs to be told", () => {
    expect(moment(at(27, 14), now)).toBe("14:02");
    expect(moment(at(26, 23), now)).toBe("yesterday 23:02");
    expect(moment(at(20, 14), now)).toBe("20 November");
    expect(moment(new Date(2025, 10, 20).getTime() / 1000, now)).toBe("20 November 2025");
    expect(away(null)).toBe("away");
  });

  it("says so in the comb, its details and the popover, and never that it shares nothing", async () => {
    vi.useFakeTimers({ now: now * 1000, toFake: ["Date"] });
    const since = { ...shown, machines: [studio, mini, { ...attic, away_since_s: at(27, 14) }] };
    const { unmount } = render(Machines, { shown: since });
    expect(hexagonOf("Attic").textContent).toContain("away since 14:02");
    await fireEvent.click(hexagonOf("Attic"));
    expect(screen.getByText("away since 14:02; it does not answer")).toBeTruthy();
    expect(document.body.textContent).not.toContain("0 MB");
    unmount();
    render(Popover, { shown: since });
    expect(screen.getByRole("list", { name: "Machines" }).textContent).toContain("away since 14:02");
  });
});

describe("the comb", () => {
  it("shows what a machine holds and did, and that one gives nothing", async () => {
    const idle = machine({ id: "four", name: "Guest", offered: 0 });
    render(Machines, { shown: { ...shown, machines: [studio, mini, idle] } });
    expect(hexagonOf("Mac mini").textContent).toContain("layers\u00a019–30");
    expect(hexagonOf("Guest").textContent).toContain("not sharing");
    await fireEvent.click(hexagonOf("Mac mini"));
    expect(screen.getByText("3 answers, 1,240 tokens")).toBeTruthy();
    await fireEvent.click(hexagonOf("Guest"));
    expect(screen.queryByText("Today")).toBeNull();
    expect([...document.querySelectorAll("dd")].map((row) => row.textContent)).toContain("not sharing");
  });

  it("has one hexagon per machine and cells for the layers it holds", () => {
    render(Machines, { shown });
    expect(document.querySelectorAll(".comb polygon.rim").length).toBe(3);
    const full = [...document.querySelectorAll(".comb path.full")].map((path) => path.getAttribute("d")!.split("Z").length - 1);
    expect(full).toEqual([18, 12]);
  });

  it("lights up at the rate of the tokens, and only while they come", async () => {
    const rates: number[] = [];
    Element.prototype.getAnimations = () => [{ updatePlaybackRate: (rate: number) => rates.push(rate) }] as unknown as Animation[];
    const { unmount } = render(Machines, { shown });
    expect(document.querySelector(".light")).toBeNull();
    swarm.speeds = [...swarm.speeds.slice(1), 4];
    await waitFor(() => expect(rates).toEqual([4]));
    const first = document.querySelector(".light");
    swarm.speeds = [...swarm.speeds.slice(1), 6];
    await waitFor(() => expect(rates.at(-1)).toBe(6));
    // It continues from its current value.
    expect(document.querySelector(".light")).toBe(first);
    swarm.speeds = [...swarm.speeds.slice(1), 0];
    await waitFor(() => expect(document.querySelector(".light")).toBeNull());
    unmount();
    // One machine has no ring.
    swarm.speeds = [...swarm.speeds.slice(1), 4];
    render(Machines, { shown: { ...shown, model: { ...shown.model!, stages: [{ machine: "Studio", layers: [0, 30] }] } } });
    expect(document.querySelector(".light")).toBeNull();
    swarm.speeds = swarm.speeds.map(() => 0);
    Reflect.deleteProperty(Element.prototype, "getAnimations");
  });
});

describe("removing a machine", () => {
  async function ask(): Promise<void> {
    await fireEvent.click(hexagonOf("Mac mini"));
    await fireEvent.click(screen.getByRole("button", { name: "Remove…" }));
  }

  it("asks first, and takes no for an answer", async () => {
    render(Machines, { shown });
    await ask();
    const question = screen.getByRole("alertdialog");
    expect(question.textContent).toContain(
      "Remove Mac mini? It will no longer compute for you. You can undo this for 30 seconds; after that, you have to pair again.",
    );
    expect(document.activeElement?.textContent).toBe("Cancel");
    await fireEvent.click(screen.getByRole("button", { name: "Cancel" }));
    await ask();
    await fireEvent.keyDown(screen.getByRole("alertdialog"), { key: "Escape" });
    expect(screen.queryByRole("alertdialog")).toBeNull();
    // The question is about one machine.
    await ask();
    await fireEvent.click(hexagonOf("Attic"));
    expect(screen.queryByRole("alertdialog")).toBeNull();
    expect(commandsAsked()).not.toContain("POST /peers/two/remove");
  });

  it("can be undone for a while, also after a look elsewhere", async () => {
    const { rerender, unmount } = render(Machines, { shown });
    await ask();
    await fireEvent.click(screen.getByRole("button", { name: "Remove" }));
    expect(asked).toContainEqual(["POST /peers/two/remove", {}]);
    await rerender({ shown: { ...shown, machines: [studio, attic] } });
    await waitFor(() => expect(screen.getByText("Removed Mac mini")).toBeTruthy());
    unmount();
    render(Machines, { shown: { ...shown, machines: [studio, attic] } });
    await fireEvent.click(screen.getByRole("button", { name: "Undo" }));
    expect(asked).toContainEqual(["POST /peers/two/restore", {}]);
    expect(screen.queryByText("Removed Mac mini")).toBeNull();
  });

  it("is no longer offered to be undone after half a minute", async () => {
    vi.useFakeTimers();
    render(Machines, { shown });
    await ask();
    await fireEvent.click(screen.getByRole("button", { name: "Remove" }));
    await vi.advanceTimersByTimeAsync(29_000);
    expect(screen.getByRole("button", { name: "Undo" })).toBeTruthy();
    await vi.advanceTimersByTimeAsync(2000);
    expect(screen.queryByRole("button", { name: "Undo" })).toBeNull();
  });

  it("says why it could not be undone", async () => {
    answers["POST /peers/two/restore"] = () => {
      throw { code: "not_restored", message: "the removal can no longer be undone", hint: null };
    };
    render(Machines, { shown });
    await ask();
    await fireEvent.click(screen.getByRole("button", { name: "Remove" }));
    await fireEvent.click(await screen.findByRole("button", { name: "Undo" }));
    await waitFor(() => expect(screen.getByRole("alert").textContent).toBe("The removal can no longer be undone"));
  });
});

describe("a machine that joins", () => {
  it.each([["Machines", Machines], ["the popover", Popover]] as const)("is announced for some seconds: %s", async (_, View) => {
    vi.useFakeTimers();
    const { rerender } = render(View, { shown: { ...shown, machines: [studio] } });
    await rerender({ shown: { ...shown, machines: [studio] } });
    expect(document.body.textContent).not.toContain("is in.");
    await rerender({ shown });
    const said = screen.getAllByRole("status").map((status) => status.textContent?.trim());
    expect(said).toContain("Mac mini and Attic are in.");
    await vi.advanceTimersByTimeAsync(9000);
    expect(document.body.textContent).not.toContain("are in.");
  });
});

describe("an invitation", () => {
  beforeEach(() => {
    let made = 0;
    answers["POST /invites"] = () => ({ ticket: `hivemind-invitation-${++made}` });
  });

  const times = (): number => commandsAsked().filter((command) => command === "POST /invites").length;

  it("is one until a machine has joined, whether as text or as a code, also after a look elsewhere", async () => {
    const { unmount } = render(Machines, { shown });
    await fireEvent.click(screen.getByRole("button", { name: "Copy invitation" }));
    await screen.findByLabelText("Your invitation, ready to copy");
    await fireEvent.click(screen.getByRole("button", { name: "Show QR code" }));
    const code = await screen.findByRole("img", { name: "QR code of your invitation" });
    unmount();
    const { rerender } = render(Machines, { shown });
    await fireEvent.click(screen.getByRole("button", { name: "Show QR code" }));
    const again = await screen.findByRole("img", { name: "QR code of your invitation" });
    expect(again.innerHTML).toBe(code.innerHTML);
    expect(times()).toBe(1);
    // Somebody has left: the invitation still works.
    await rerender({ shown: { ...shown, machines: [studio, mini] } });
    expect(screen.queryByRole("img", { name: "QR code of your invitation" })).toBeTruthy();
    await rerender({ shown: { ...shown, machines: [...shown.machines, machine({ id: "new", name: "New" })] } });
    expect(screen.queryByRole("img", { name: "QR code of your invitation" })).toBeNull();
    await fireEvent.click(screen.getByRole("button", { name: "Copy invitation" }));
    await waitFor(() => expect(screen.getByLabelText<HTMLTextAreaElement>("Your invitation, ready to copy").value).toBe("hivemind-invitation-2"));
  });

  it("that could not be made is tried again", async () => {
    const invite = answers["POST /invites"]!;
    answers["POST /invites"] = () => {
      throw { code: "data", message: "the disk is full", hint: null };
    };
    render(Machines, { shown });
    await fireEvent.click(screen.getByRole("button", { name: "Show QR code" }));
    await waitFor(() => expect(screen.getByRole("alert").textContent).toBe("The disk is full"));
    answers["POST /invites"] = invite;
    await fireEvent.click(screen.getByRole("button", { name: "Show QR code" }));
    await screen.findByRole("img", { name: "QR code of your invitation" });
    expect(screen.queryByRole("alert")).toBeNull();
  });

  it("says that it was copied, also to those who do not see it", async () => {
    vi.stubGlobal("ClipboardItem", class {});
    Object.defineProperty(navigator, "clipboard", { value: { write: () => Promise.resolve() }, configurable: true });
    render(Machines, { shown });
    await fireEvent.click(screen.getByRole("button", { name: "Copy invitation" }));
    await screen.findByRole("button", { name: "Copied" });
    expect(screen.getAllByRole("status").map((status) => status.textContent)).toContain("Copied");
  });
});

describe("the popover", () => {
  const parts = (): HTMLElement => document.querySelector("section[aria-label='Memory on this machine']")!;

  it("shows memory that is not shared as what would be", async () => {
    const off = { ...shown, share: false, memory: { ...shown.memory, sharing: false, offered: 22.4e9, held: 0, cap: null } };
    const { rerender } = render(Popover, { shown: off });
    expect(parts().classList.contains("off")).toBe(true);
    expect(parts().textContent).toContain("Would share up to 22.4 GB");
    expect(parts().textContent).toContain("not shared");
    await rerender({ shown });
    expect(parts().classList.contains("off")).toBe(false);
    expect(parts().textContent).toContain("16.0 GB of 24.0 GB");
  });

  it("has no line of speeds while there were none", async () => {
    render(Popover, { shown });
    expect(document.body.textContent).not.toContain("tok/s");
    expect(document.querySelector("figure")).toBeNull();
    swarm.speeds = [...swarm.speeds.slice(1), 43];
    await waitFor(() => expect(document.querySelector("figure")).toBeTruthy());
    swarm.speeds = swarm.speeds.map(() => 0);
  });

  it("is as high as its content", async () => {
    const height = vi.spyOn(HTMLElement.prototype, "offsetHeight", "get").mockReturnValue(300);
    render(Popover, { shown });
    const wanted = ["fit_popover", { width: innerWidth, height: 302 }];
    await waitFor(() => expect(asked).toEqual([wanted]));
    // With larger text, the window took another size.
    await fireEvent(window, new Event("resize"));
    expect(asked).toEqual([wanted, wanted]);
    vi.stubGlobal("innerHeight", 302);
    await fireEvent(window, new Event("resize"));
    expect(asked.length).toBe(2);
    height.mockRestore();
  });
});

it("nothing keeps anybody out, with a question, a code and news on the page", async () => {
  answers["POST /invites"] = () => ({ ticket: "hivemind-invitation" });
  const { rerender } = render(Machines, { shown: { ...shown, machines: [studio, mini] } });
  await rerender({ shown });
  await fireEvent.click(hexagonOf("Mac mini"));
  await fireEvent.click(screen.getByRole("button", { name: "Remove…" }));
  await fireEvent.click(screen.getByRole("button", { name: "Show QR code" }));
  await screen.findByRole("img", { name: "QR code of your invitation" });
  const found = await axe.run(document.body, { rules: { "color-contrast": { enabled: false }, region: { enabled: false } } });
  expect(found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`)).toEqual([]);
});
