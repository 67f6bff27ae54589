import { mockIPC } from "@tauri-apps/api/mocks";
import { cleanup, fireEvent, render, screen, waitFor, within } from "@testing-library/svelte";
import axe from "axe-core";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { Snapshot } from "../lib/bindings";
import { chats } from "../lib/chats.svelte";
import { library } from "../lib/library.svelte";
import { catalogueModel, onDisk, variant } from "../testing";
import { FakeNode, message } from "../testing/node";
import Chat from "./Chat.svelte";

const shown = { machines: [], loads: [] } as unknown as Snapshot;

let node: FakeNode;

beforeEach(() => {
  node = new FakeNode();
  mockIPC((command, given) => {
    if (command === "request") return node.request(given as never);
    if (command === "follow") return node.follow(given as never);
    return null;
  });
  Element.prototype.scrollTo = () => {};
  Element.prototype.scrollIntoView = () => {};
  localStorage.clear();
  chats.reset();
});

afterEach(() => {
  cleanup();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

const field = (): HTMLTextAreaElement => screen.getByLabelText("Message…");
const calls = (): string[] => node.asked.map(([method, path]) => `${method} ${path}`);

/** A conversation in the list. */
function listed(title: string): HTMLElement {
  const found = document.querySelector<HTMLElement>(`.list [title="${title}"]`);
  if (!found) throw new Error(`${title} is not listed`);
  return found;
}

async function open(): Promise<string> {
  render(Chat, { shown, machines: () => {} });
  await waitFor(() => expect(chats.open.id).not.toBe(""));
  return chats.open.id;
}

async function type(text: string): Promise<void> {
  await fireEvent.input(field(), { target: { value: text } });
}

async function ask(text: string): Promise<void> {
  await type(text);
  await fireEvent.keyDown(field(), { key: "Enter" });
  await waitFor(() => expect(chats.answering).not.toBeNull());
}

const body = (): string => [...document.querySelectorAll(".body")].map((part) => part.textContent?.trim()).join("|");

describe("an answer", () => {
  it("grows, and says at its end who computed it", async () => {
    const id = await open();
    await ask("Are you there?");
    node.write(id, "Ye");
    node.write(id, "s.");
    await waitFor(() => expect(body()).toBe("Yes."));
    expect(screen.queryByText(/tok\/s/)).toBeNull();
    const parts = [
      { tokens: 4, machines: ["Attic", "Studio"], after: null },
      { tokens: 6, machines: ["Studio"], after: { why: "Attic left…", trouble: null, pause_s: 1.7 } },
    ];
    node.end(id, { computed: { tokens_per_s: 9.4, first_s: 0.1, context_tokens: 41, context_limit: 100, parts, unknown_options: ["style"] } });
    expect(await screen.findByText("41% of this model’s context")).toBeTruthy();
    await waitFor(() => expect(screen.getByText("9.4 tok/s · Attic + Studio · 0.1 s to first word · this model has no option “style”")).toBeTruthy());
    const line = screen.getByRole("img", { name: "Attic + Studio: 4 tokens. Attic left; 1.7 s, no word lost. Studio: 6 tokens." });
    expect(line.querySelectorAll("span").length).toBe(3);
    expect(line.querySelectorAll(".notch").length).toBe(1);
  });

  it("is there again for whoever leaves it and returns, while another is asked", async () => {
    const id = await open();
    await ask("A long story");
    node.write(id, "Once ");
    await fireEvent.click(screen.getByRole("button", { name: "New chat" }));
    await waitFor(() => expect(chats.open.id).not.toBe(id));
    const light = await screen.findByRole("img", { name: "Answering…" });
    expect(light.closest("li")?.textContent).toContain("A long story");
    // The other chat can be asked meanwhile, and what belongs to the first does not get into it.
    await ask("A short one");
    node.write(id, "upon ");
    node.write(chats.open.id, "Hi");
    await waitFor(() => expect(body()).toBe("Hi"));
    await fireEvent.click(listed("A long story"));
    await waitFor(() => expect(body()).toBe("Once upon"));
    node.write(id, "a time");
    await waitFor(() => expect(body()).toBe("Once upon a time"));
  });

  it("that broke off keeps its words and can be continued; without a word it can be tried again", async () => {
    const id = await open();
    await ask("Hello");
    node.write(id, "Good ");
    node.end(id, { complete: false }, "all machines left");
    await waitFor(() => expect(screen.getByRole("alert").textContent).toContain("interrupted: all machines left"));
    await fireEvent.click(screen.getByRole("button", { name: "Continue" }));
    await waitFor(() => expect(calls()).toContain(`POST /conversations/${id}/resume`));
    node.write(id, "day");
    node.end(id);
    await waitFor(() => expect(body()).toBe("Good day"));
    expect(screen.queryByRole("alert")).toBeNull();
    expect(screen.queryByRole("button", { name: "Continue" })).toBeNull();
    await ask("And now?");
    node.end(id, { complete: false }, "no room for this model");
    await waitFor(() => expect(screen.getByRole("alert").textContent).toBe("No room for this model"));
    const question = node.conversations.get(id)?.messages.at(-1)?.id;
    await fireEvent.click(screen.getByRole("button", { name: "Try again" }));
    await waitFor(() => expect(node.asked.at(-1)).toEqual(["POST", `/conversations/${id}/again`, { message: question }]));
  });

  it("says what it does, and that a machine left for two seconds at least", async () => {
    const id = await open();
    await ask("Tell me");
    node.status(id, { kind: "reading", tokens: 512, of: 2000 });
    await waitFor(() => expect(screen.getByText("Reading: 512 of 2,000 tokens")).toBeTruthy());
    vi.useFakeTimers();
    const clock = vi.spyOn(performance, "now").mockReturnValue(1000);
    node.status(id, { kind: "recovering", why: "Attic left; continuing without it", trouble: null });
    node.status(id, { kind: "answering" });
    node.write(id, "Here");
    await vi.advanceTimersByTimeAsync(1900);
    expect(screen.getByText("Attic left; continuing without it")).toBeTruthy();
    expect(body()).toBe("Here");
    await vi.advanceTimersByTimeAsync(200);
    expect(screen.queryByText("Attic left; continuing without it")).toBeNull();
    clock.mockRestore();
  });

  it("stops with Escape, and no key of a rename stops it", async () => {
    const id = await open();
    await ask("Tell me");
    node.write(id, "Well");
    await chats.refresh();
    await fireEvent.dblClick(await waitFor(() => listed("Tell me")));
    const name = screen.getByDisplayValue("Tell me");
    await fireEvent.keyDown(name, { key: "Escape" });
    expect(calls()).not.toContain(`POST /conversations/${id}/stop`);
    await fireEvent.keyDown(window, { key: "Escape" });
    await waitFor(() => expect(calls()).toContain(`POST /conversations/${id}/stop`));
    await waitFor(() => expect(screen.getByRole("button", { name: "Continue" })).toBeTruthy());
  });
});

describe("the model", () => {
  const STARTER = onDisk("Starter", { removable: false });
  const QWEN = catalogueModel("Qwen3 8B", [variant("owner/qwen", 4.6e9, { verdict: "comfortable" })]);
  const find = vi.fn();
  const picker = (): HTMLSelectElement => screen.getByLabelText("Model");
  const loading = { name: "owner/qwen", layers: 0, of: 36, fetched: 1e9, fetching: 4.6e9 };

  async function start(given: Snapshot = shown, skipped = true) {
    find.mockClear();
    if (skipped) localStorage.setItem("welcome-skipped", "yes");
    const page = render(Chat, { shown: given, machines: () => {}, find });
    await waitFor(() => expect(chats.open.id).not.toBe(""));
    return page;
  }

  it("can be looked for from where it is picked, and stays the one that it was", async () => {
    node.models = [STARTER, onDisk("owner/other")];
    await start();
    await waitFor(() => expect([...picker().options].map((option) => option.text)).toEqual(["Starter", "owner/other", "Find a model…"]));
    await fireEvent.change(picker(), { target: { selectedIndex: 2 } });
    expect(find).toHaveBeenCalledOnce();
    expect(chats.choices.model).toBeNull();
    await fireEvent.change(picker(), { target: { value: "owner/other" } });
    expect(chats.choices.model).toBe("owner/other");
  });

  it("can be one with an adapter, under its name", async () => {
    node.models = [{ ...STARTER, adapted: ["tuned"] }, onDisk("owner/other", { adapted: ["poet"] })];
    await start();
    const names = ["Starter", "tuned", "owner/other", "poet", "Find a model…"];
    await waitFor(() => expect([...picker().options].map((option) => option.text)).toEqual(names));
    await fireEvent.change(picker(), { target: { value: "poet" } });
    expect(chats.choices.model).toBe("poet");
    await waitFor(() => expect(picker().selectedOptions[0]?.text).toBe("poet"));
    expect(picker().options).toHaveLength(names.length);
  });

  it("is named even if it is not on this machine", async () => {
    node.models = [STARTER];
    await start();
    chats.prefer({ model: "owner/qwen" });
    await waitFor(() => expect(picker().selectedOptions[0]?.text).toBe("owner/qwen"));
    chats.prefer({ model: "Starter" });
    await waitFor(() => expect(picker().selectedOptions[0]?.text).toBe("Starter"));
  });

  it("that comes with HiveMind is followed by one that suits, and is chosen once it is there", async () => {
    node.models = [STARTER];
    node.catalogue = [QWEN];
    await start();
    await fireEvent.click(await screen.findByRole("button", { name: "Get Qwen3 8B (4.6 GB)" }));
    await waitFor(() => expect(chats.choices.model).toBe("owner/qwen"));
    expect(node.asked).toContainEqual(["POST", "/models/load", { model: "owner/qwen" }]);
  });

  it("is suggested beside the welcome, too", async () => {
    node.models = [STARTER];
    node.catalogue = [QWEN];
    await start(shown, false);
    expect(await screen.findByRole("button", { name: "Get Qwen3 8B (4.6 GB)" })).toBeTruthy();
    expect(screen.getByText(/Lend spare memory/)).toBeTruthy();
  });

  it("is not suggested to whoever has one", async () => {
    node.models = [STARTER, onDisk("owner/other")];
    node.catalogue = [QWEN];
    await start();
    await waitFor(() => expect(picker().options.length).toBe(3));
    expect(screen.queryByRole("button", { name: /^Get / })).toBeNull();
  });

  it("that is fetched for a question shows how far it is, until words come", async () => {
    node.models = [STARTER];
    const page = await start();
    await ask("Hello?");
    expect(screen.queryByRole("progressbar")).toBeNull();
    await page.rerender({ shown: { ...shown, loads: [loading] } });
    expect(screen.getByRole<HTMLProgressElement>("progressbar").value).toBe(1e9);
    expect(screen.getByText("owner/qwen")).toBeTruthy();
    // What is in memory waits for no other model's download.
    node.models = [{ ...STARTER, loaded: true }];
    await library.refresh();
    await waitFor(() => expect(screen.queryByRole("progressbar")).toBeNull());
    node.models = [STARTER];
    await library.refresh();
    expect(await screen.findByRole("progressbar")).toBeTruthy();
    node.write(chats.open.id, "Hi");
    await waitFor(() => expect(screen.queryByRole("progressbar")).toBeNull());
  });
});

describe("a question", () => {
  it("that is edited becomes another version, and nothing is lost by looking", async () => {
    node.add("c", "Lisbon", [
      message({ id: "q1", role: "user", text: "One?" }),
      message({ id: "a1", text: "1" }),
      message({ id: "q2", role: "user", text: "Two?" }),
      message({ id: "a2", text: "2" }),
    ]);
    await open();
    await fireEvent.click(await waitFor(() => listed("Lisbon")));
    await waitFor(() => expect(body()).toBe("1|2"));
    const first = screen.getAllByRole("listitem", { name: "You" })[0]!;
    await fireEvent.click(within(first).getByRole("button", { name: "Edit" }));
    const edit = screen.getByDisplayValue("One?");
    await fireEvent.input(edit, { target: { value: "Uno?" } });
    await fireEvent.keyDown(edit, { key: "Escape" });
    expect(body()).toBe("1|2");
    expect(calls().some((call) => call.endsWith("/ask"))).toBe(false);
    await fireEvent.click(within(first).getByRole("button", { name: "Edit" }));
    await fireEvent.input(screen.getByDisplayValue("One?"), { target: { value: "Uno?" } });
    await fireEvent.keyDown(screen.getByDisplayValue("Uno?"), { key: "Enter" });
    await waitFor(() => expect(node.asked.at(-1)).toEqual(["POST", "/conversations/c/ask", { text: "Uno?", edited: "q1" }]));
    node.write("c", "I");
    node.end("c");
    await waitFor(() => expect(screen.getByText("2/2")).toBeTruthy());
    expect(screen.getByRole<HTMLButtonElement>("button", { name: "Next version" }).disabled).toBe(true);
    await fireEvent.click(screen.getByRole("button", { name: "Previous version" }));
    await waitFor(() => expect(node.asked.at(-1)).toEqual(["POST", "/conversations/c/choose", { message: "q1" }]));
  });

  it("that is being edited is there again after a look elsewhere, and after Escape", async () => {
    node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: "One?" }), message({ id: "a1", text: "1" })]);
    await open();
    const reopen = async (): Promise<void> => {
      await fireEvent.click(await waitFor(() => listed("Lisbon")));
      await waitFor(() => expect(body()).toContain("1"));
    };
    await reopen();
    await fireEvent.click(screen.getByRole("button", { name: "Edit" }));
    await fireEvent.input(screen.getByDisplayValue("One?"), { target: { value: "Uno?" } });
    await fireEvent.click(screen.getByRole("button", { name: "New chat" }));
    await waitFor(() => expect(chats.open.id).not.toBe("c"));
    await reopen();
    const edit = screen.getByDisplayValue("Uno?");
    await fireEvent.keyDown(edit, { key: "Escape" });
    await waitFor(() => expect(screen.queryByDisplayValue("Uno?")).toBeNull());
    await fireEvent.click(screen.getByRole("button", { name: "Undo" }));
    expect(await screen.findByDisplayValue("Uno?")).toBeTruthy();
    // Nothing is kept of an edit that was cancelled or changed nothing.
    await fireEvent.click(screen.getByRole("button", { name: "Cancel" }));
    chats.leave();
    await waitFor(() => expect(node.conversations.get("c")!.messages[0]!.edit).toBeNull());
    expect(screen.getByRole("button", { name: "Undo" })).toBeTruthy();
  });

  it("that is being edited is there again with its branch, and is begun again where it was", async () => {
    const question = (id: string, more: object): ReturnType<typeof message> => message({ id, role: "user", branches: ["q1", "q2"], ...more });
    const answer = message({ id: "a", text: "1" });
    node.add("c", "Lisbon", [question("q2", { text: "Two?" }), answer]);
    await open();
    await fireEvent.click(await waitFor(() => listed("Lisbon")));
    await waitFor(() => expect(body()).toContain("1"));
    expect(screen.queryByDisplayValue("Uno?")).toBeNull();
    // As after "Previous version".
    node.conversations.get("c")!.messages = [question("q1", { text: "One?", edit: "Uno?" }), answer];
    node.whole("c");
    const edit = await screen.findByDisplayValue("Uno?");
    expect(document.activeElement).not.toBe(edit);
    await fireEvent.keyDown(edit, { key: "Escape" });
    await fireEvent.click(within(screen.getByRole("listitem", { name: "You" })).getByRole("button", { name: "Edit" }));
    expect(document.activeElement).toBe(await screen.findByDisplayValue("One?"));
  });

  it("is asked in its own chat, however soon another is opened", async () => {
    node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: "One?" }), message({ id: "a1", text: "1" })]);
    const id = await open();
    let release = (): void => {};
    node.held[`/conversations/${id}/draft`] = new Promise<void>((done) => (release = done));
    node.refused[`/conversations/${id}/ask`] = "no machine is left";
    await type("Hello");
    await fireEvent.keyDown(field(), { key: "Enter" });
    void fireEvent.click(await waitFor(() => listed("Lisbon")));
    release();
    await waitFor(() => expect(body()).toBe("1"));
    await waitFor(() => expect(calls()).toContain(`POST /conversations/${id}/ask`));
    expect(calls().filter((call) => call.endsWith("/ask"))).toEqual([`POST /conversations/${id}/ask`]);
    // What failed there, and its question, stay there.
    expect(field().value).toBe("");
    expect(screen.queryByRole("alert")).toBeNull();
    expect(node.conversations.get(id)!.draft).toBe("Hello");
  });

  it("that was asked last is edited with the up arrow in an empty field", async () => {
    const id = await open();
    await ask("Hello");
    node.write(id, "Hi");
    node.end(id);
    await waitFor(() => expect(chats.answering).toBeNull());
    await type("half");
    await fireEvent.keyDown(field(), { key: "ArrowUp" });
    expect(screen.queryByDisplayValue("Hello")).toBeNull();
    await type("");
    await fireEvent.keyDown(field(), { key: "ArrowUp" });
    expect(screen.getByDisplayValue("Hello")).toBeTruthy();
  });

  it("that is refused is in the field again", async () => {
    const id = await open();
    node.refused[`${id}/ask`] = "HiveMind is stopping";
    await type("Hello");
    await fireEvent.keyDown(field(), { key: "Enter" });
    await waitFor(() => expect(screen.getByRole("alert").textContent).toBe("HiveMind is stopping"));
    await waitFor(() => expect(field().value).toBe("Hello"));
  });

  it("is not sent while an input method composes it", async () => {
    await open();
    await type("にほん");
    await fireEvent.keyDown(field(), { key: "Enter", isComposing: true });
    await fireEvent.keyDown(field(), { key: "Enter", keyCode: 229 });
    expect(calls().some((call) => call.endsWith("/ask"))).toBe(false);
  });

  it("too long for any model is refused when it is pasted", async () => {
    vi.stubGlobal("ClipboardEvent", Event);
    await open();
    const paste = new Event("paste", { bubbles: true, cancelable: true });
    Object.assign(paste, { clipboardData: { getData: () => "x".repeat(1_000_000) } });
    await fireEvent(field(), paste);
    expect(paste.defaultPrevented).toBe(true);
    expect(screen.getByRole("alert").textContent).toContain("Too long for any model");
  });
});

describe("a conversation", () => {
  it("keeps its draft and its settings, also a new one, and however soon another is looked at", async () => {
    node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: "One?" })]);
    const id = await open();
    await type("half a thought");
    await fireEvent.click(screen.getByRole("button", { name: "Instructions and sampling" }));
    await fireEvent.change(screen.getByLabelText("Thinking"), { target: { value: "false" } });
    await fireEvent.change(screen.getByLabelText("Effort"), { target: { value: "high" } });
    await fireEvent.change(screen.getByLabelText("Other options"), { target: { value: "budget=5, style=dry" } });
    await fireEvent.input(screen.getByLabelText(/^Temperature/), { target: { value: "0.9" } });
    await fireEvent.input(screen.getByLabelText(/^Instructions for/), { target: { value: "Be brief" } });
    await fireEvent.click(await waitFor(() => listed("Lisbon")));
    await waitFor(() => expect(chats.open.id).toBe("c"));
    expect([field().value, chats.choices.temperature]).toEqual(["", 0.3]);
    const kept = node.conversations.get(id);
    expect(kept?.draft).toBe("half a thought");
    expect(kept?.choices).toMatchObject({ temperature: 0.9, options: ["enable_thinking=false", "reasoning_effort=high", "budget=5", "style=dry"] });
    expect(node.asked).toContainEqual(["POST", `/conversations/${id}/instructions`, { instructions: "Be brief" }]);
    await fireEvent.click(screen.getByRole("button", { name: "New chat" }));
    await waitFor(() => expect(field().value).toBe("half a thought"));
    expect(chats.open.id).toBe(id);
  });

  it("has what was typed right after it was begun, and the one before has not", async () => {
    node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: "One?" })]);
    await open();
    await fireEvent.click(await waitFor(() => listed("Lisbon")));
    await waitFor(() => expect(chats.open.id).toBe("c"));
    void chats.begin();
    await Promise.resolve();
    await type("quick");
    chats.prefer({ temperature: 0 });
    await waitFor(() => expect(chats.open.id).toMatch(/^new/));
    expect([field().value, chats.choices.temperature]).toEqual(["quick", 0]);
    await chats.begin();
    const begun = [...node.conversations.values()].find(({ id }) => id.startsWith("new"));
    expect([begun?.draft, begun?.choices.temperature, node.conversations.get("c")?.draft]).toEqual(["quick", 0, ""]);
  });

  it("keeps what was typed just before the page is left, or an answer is stopped", async () => {
    const id = await open();
    await type("half");
    window.dispatchEvent(new Event("pagehide"));
    await waitFor(() => expect(node.conversations.get(id)?.draft).toBe("half"));
    await ask("Tell me");
    node.write(id, "Well");
    await type("next");
    await fireEvent.click(screen.getByRole("button", { name: "Stop" }));
    await waitFor(() => expect(chats.answering).toBeNull());
    expect(node.conversations.get(id)?.draft).toBe("next");
  });

  it("keeps what was typed before it was there", async () => {
    render(Chat, { shown, machines: () => {} });
    await type("quick");
    await waitFor(() => expect(chats.open.id).not.toBe(""));
    expect(field().value).toBe("quick");
    await fireEvent.keyDown(field(), { key: "Enter" });
    await waitFor(() => expect(node.asked.at(-1)).toEqual(["POST", `/conversations/${chats.open.id}/ask`, { text: "quick" }]));
  });

  it("is renamed by leaving the field, and by Enter; Escape keeps the name", async () => {
    node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: "One?" })]);
    await open();
    await fireEvent.dblClick(await waitFor(() => listed("Lisbon")));
    await fireEvent.input(screen.getByDisplayValue("Lisbon"), { target: { value: "Porto" } });
    await fireEvent.blur(screen.getByDisplayValue("Porto"));
    await waitFor(() => expect(node.asked.at(-1)).toEqual(["POST", "/conversations/c/rename", { title: "Porto" }]));
  });

  it("that is deleted comes back by Undo after another deletion, too, and after news that covered it", async () => {
    for (const title of ["Lisbon", "Dates"]) node.add(title, title, [message({ id: title, role: "user", text: title })]);
    await open();
    for (const title of ["Lisbon", "Dates"]) {
      await fireEvent.click(await waitFor(() => screen.getByRole("button", { name: `Delete ${title}` })));
      await waitFor(() => expect(node.deleted.has(title)).toBe(true));
    }
    await chats.copy();
    await waitFor(() => expect(screen.queryByRole("button", { name: "Undo" })).toBeNull());
    await fireEvent.click(screen.getByRole("button", { name: "Dismiss" }));
    for (const title of ["Dates", "Lisbon"]) {
      await fireEvent.click(await screen.findByRole("button", { name: "Undo" }));
      await waitFor(() => expect(node.conversations.has(title)).toBe(true));
    }
    expect(screen.queryByRole("button", { name: "Undo" })).toBeNull();
  });

  it("that is deleted comes back by Undo", async () => {
    node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: "One?" })]);
    await open();
    await waitFor(() => listed("Lisbon"));
    await fireEvent.click(screen.getByRole("button", { name: "Delete Lisbon" }));
    await waitFor(() => expect(screen.getByText("Deleted “Lisbon”")).toBeTruthy());
    await chats.refresh();
    expect(screen.queryByTitle("Lisbon")).toBeNull();
    await fireEvent.click(screen.getByRole("button", { name: "Undo" }));
    await chats.refresh();
    await waitFor(() => expect(listed("Lisbon")).toBeTruthy());
  });

  it("that is undone while its answer is still being saved is not deleted afterwards", async () => {
    let saved = () => {};
    const saving = new Promise<void>((done) => (saved = done));
    mockIPC((command, given) => {
      if (command === "follow") return node.follow(given as never);
      if (command !== "request") return null;
      const deletes = (given as { method: string }).method === "DELETE";
      return deletes ? saving.then(() => node.request(given as never)) : node.request(given as never);
    });
    node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: "One?" })]);
    await open();
    await waitFor(() => listed("Lisbon"));
    await fireEvent.click(screen.getByRole("button", { name: "Delete Lisbon" }));
    await fireEvent.click(await screen.findByRole("button", { name: "Undo" }));
    saved();
    await waitFor(() => expect(calls().slice(-2)).toEqual(["DELETE /conversations/c", "POST /conversations/c/restore"]));
    await chats.refresh();
    expect(listed("Lisbon")).toBeTruthy();
  });

  it("is found by its words, shown with the passage, and opened at it", async () => {
    node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: "Where?" }), message({ id: "a1", text: "By the old tram" })]);
    node.add("d", "Dates", [message({ id: "q9", role: "user", text: "When?" })]);
    const sought = vi.fn();
    Element.prototype.scrollIntoView = sought;
    await open();
    await fireEvent.input(screen.getByRole("searchbox"), { target: { value: "old tram" } });
    await waitFor(() => expect(document.querySelector("mark")?.textContent).toBe("old tram"));
    expect(screen.queryByTitle("Dates")).toBeNull();
    await fireEvent.click(listed("Lisbon"));
    await waitFor(() => expect(sought).toHaveBeenCalled());
    expect(document.querySelector(".sought")?.textContent).toContain("By the old tram");
  });

  it("is found in a folded thought, which opens for it, and in no other", async () => {
    const text = "<think>By the old tram, I think.</think>\n\nTake the bus.";
    node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: "How?" }), message({ id: "a1", text })]);
    await open();
    await fireEvent.click(await waitFor(() => listed("Lisbon")));
    const thought = await waitFor(() => document.querySelector("details")!);
    await chats.show("c", "a1", "the bus");
    await waitFor(() => expect(document.querySelector(".sought")).not.toBeNull());
    expect(thought.open).toBe(false);
    await chats.show("c", "a1", "OLD tram");
    await waitFor(() => expect(thought.open).toBe(true));
  });

  it("can be used by everybody", async () => {
    node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: "Where?" }), message({ id: "a1", text: "Here", complete: false })]);
    await open();
    await fireEvent.click(await waitFor(() => listed("Lisbon")));
    await waitFor(() => expect(body()).toBe("Here"));
    const found = await axe.run(document.body, { rules: { "color-contrast": { enabled: false }, region: { enabled: false } } });
    expect(found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`)).toEqual([]);
    // The list is one stop, whatever its length.
    const stops = [...document.querySelectorAll<HTMLElement>(".list button")].filter((button) => button.tabIndex === 0);
    expect(stops.length).toBe(1);
  });
});

describe("the context", () => {
  it("that is nearly full is said in time, with a way on", async () => {
    const computed = { tokens_per_s: 9, first_s: 0.1, context_tokens: 7800, context_limit: 8192, parts: [], unknown_options: [] };
    node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: "One?" }), message({ id: "a1", text: "1", computed })]);
    await open();
    await fireEvent.click(await waitFor(() => listed("Lisbon")));
    const said = await screen.findByText(/fills 95% of the model’s context/);
    await fireEvent.click(within(said).getByRole("button", { name: "New chat" }));
    await waitFor(() => expect(chats.open.id).not.toBe("c"));
  });
});

describe("scrolling", () => {
  it("up wins over following, however little; the pill leads back", async () => {
    const id = await open();
    await ask("A long story");
    const scroller = screen.getByRole("log");
    let top = 900;
    Object.defineProperties(scroller, {
      scrollHeight: { get: () => 1400 },
      clientHeight: { get: () => 500 },
      scrollTop: { get: () => top, set: (value: number) => (top = value) },
    });
    const moved = vi.fn((to: ScrollToOptions) => (top = Math.min(to.top ?? 0, 900)));
    scroller.scrollTo = moved as never;
    await fireEvent.scroll(scroller);
    node.write(id, "Once ");
    await waitFor(() => expect(moved).toHaveBeenCalled());
    expect(screen.queryByRole("button", { name: "↓ Newest" })).toBeNull();
    top = 893;
    await fireEvent.scroll(scroller);
    moved.mockClear();
    node.write(id, "upon ");
    await waitFor(() => expect(body()).toContain("upon"));
    expect([moved.mock.calls.length, top]).toEqual([0, 893]);
    await fireEvent.click(screen.getByRole("button", { name: "↓ Newest" }));
    expect(top).toBe(900);
    await fireEvent.scroll(scroller);
    await waitFor(() => expect(screen.queryByRole("button", { name: "↓ Newest" })).toBeNull());
    await fireEvent.wheel(scroller, { deltaY: -3 });
    await waitFor(() => expect(screen.getByRole("button", { name: "↓ Newest" })).toBeTruthy());
  });
});
