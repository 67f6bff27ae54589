import { mockIPC } from "@tauri-apps/api/mocks";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/svelte";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import type { Snapshot } from "../lib/bindings";
import Main from "./Main.svelte";

/** What the rail shows of a machine; the pages get nothing. */
const shown = {
  name: "Studio",
  state: "sharing",
  share: true,
  paused: false,
  line: "Sharing · 2 machines",
  memory: { total: 24e9, taken: 5e9, sharing: true, offered: 12e9, held: 4e9, cap: 16e9, recommended: 18e9 },
  machines: [
    {
      id: "one",
      name: "Studio",
      own: true,
      here: true,
      sharing: true,
      today: { answers: 0, tokens: 0 },
      offered: 12e9,
      layers: [],
      copies: [],
      other_links: [],
    },
  ],
  requests: [],
  found: [],
  update: { kind: "unknown" },
  loads: [],
} as unknown as Snapshot;

let asked: string[] = [];

beforeEach(() => {
  asked = [];
  mockIPC((command) => {
    asked.push(command);
    return command.startsWith("list") ? [] : null;
  });
  HTMLDialogElement.prototype.showModal = function () {
    this.open = true;
  };
  HTMLDialogElement.prototype.close = function () {
    this.open = false;
  };
  Element.prototype.scrollTo ??= () => {};
  history.replaceState(null, "", "#machines");
  localStorage.clear();
  render(Main, { shown });
});

afterEach(cleanup);

const press = (key: string): Promise<boolean> => fireEvent.keyDown(window, { key, ctrlKey: true });
const page = (): string | undefined => document.querySelector("[aria-current=page]")?.textContent?.trim();
const focused = (): string | null | undefined => document.activeElement?.getAttribute("aria-label");

describe("from every page,", () => {
  it("a new chat begins with its field", async () => {
    expect(page()).toBe("Machines");
    await press("n");
    await waitFor(() => expect(focused()).toBe("Message…"));
    expect(page()).toBe("Chat");
  });

  it("chats are searched", async () => {
    await press("f");
    await waitFor(() => expect(focused()).toBe("Search conversations"));
    expect(page()).toBe("Chat");
  });

  it("the window is closed, the app is quit, and text has another size", async () => {
    await press("w");
    await press("q");
    await press("+");
    expect(asked.filter((command) => /hide|quit|text_size/.test(command))).toEqual(["hide", "quit", "text_size"]);
    expect(screen.getByText("Text size 110%")).toBeTruthy();
    await press("0");
    expect(screen.getByText("Text size 100%")).toBeTruthy();
  });

  it("a model is dropped, which shows where it goes", async () => {
    const event = (kind: string): Event => {
      const event = new Event(kind, { bubbles: true, cancelable: true });
      const files = kind === "drop" ? [new File([], "notes.txt")] : [];
      return Object.assign(event, { dataTransfer: { types: ["Files"], files, dropEffect: "none" } });
    };
    mockIPC((command, given) => {
      asked.push(command);
      if (command !== "request") return null;
      return (given as { path: string }).path.includes("catalogue") ? '{"models":[],"problem":null}' : "[]";
    });
    const rail = document.querySelector("nav")!;
    await fireEvent(rail, event("dragenter"));
    await fireEvent.dragLeave(screen.getByText("Drop to add this model").parentElement!);
    expect(screen.queryByText("Drop to add this model")).toBeNull();
    await fireEvent(rail, event("dragover"));
    expect(screen.getByText("Drop to add this model")).toBeTruthy();
    await fireEvent(rail, event("drop"));
    expect(asked).toContain("dropped_files");
    await waitFor(() => expect(page()).toBe("Models"));
    expect(screen.queryByText("Drop to add this model")).toBeNull();
    // The shell of this test knows of no files.
    expect(await screen.findByText(/can’t see where this is/)).toBeTruthy();
  });

  it("the list of shortcuts is opened and closed", async () => {
    await press("/");
    expect(screen.getByRole("dialog", { name: "Keyboard shortcuts" })).toBeTruthy();
    // Nothing behind it moves.
    await press("1");
    expect(page()).toBe("Machines");
    await fireEvent.click(screen.getByRole("button", { name: "Close" }));
    expect(screen.queryByRole("dialog")).toBeNull();
  });

  it("the menu's new chat has its field, too", async () => {
    await press("1");
    document.querySelector("button")!.focus();
    history.replaceState(null, "", "#new-chat");
    await fireEvent(window, new HashChangeEvent("hashchange"));
    await waitFor(() => expect(focused()).toBe("Message…"));
  });
});

describe("the rail", () => {
  it("is one stop, and what comes first leads past it", async () => {
    const stops = [...document.querySelectorAll<HTMLElement>("nav button")].filter((button) => button.tabIndex === 0);
    expect(stops.map((button) => button.textContent?.trim())).toEqual(["Machines"]);
    const first = document.querySelector("button")!;
    expect(first.textContent).toBe("Skip to page");
    await fireEvent.click(first);
    expect(document.activeElement?.className).toContain("view");
    await press("1");
    expect(first.textContent).toBe("Skip to message");
    await fireEvent.click(first);
    expect(focused()).toBe("Message…");
  });

  it("says in a word whether this machine shares, and leads to the machines", async () => {
    await press("3");
    await fireEvent.click(screen.getByRole("button", { name: "Sharing" }));
    expect(page()).toBe("Machines");
    cleanup();
    for (const [more, word] of [
      [{ share: false }, "Not sharing"],
      [{ paused: true }, "Paused"],
      [{ state: "paused" }, "Paused"],
      [{ state: "busy" }, "Computing"],
      [{ state: "attention" }, "Sharing"],
    ] as const) {
      render(Main, { shown: { ...shown, ...more } as Snapshot });
      expect(screen.getByRole("button", { name: word }).title).toBe(shown.line);
      cleanup();
    }
  });

  it("has a drawing of its own for each page", () => {
    const drawings = [...document.querySelectorAll("nav svg")].map((drawing) => drawing.innerHTML);
    expect(new Set(drawings).size).toBe(5);
  });
});
