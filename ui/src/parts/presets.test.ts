/** Presets in a chat's settings, and prompts in the composer. */
import { mockIPC } from "@tauri-apps/api/mocks";
import { cleanup, configure, fireEvent, render, screen, waitFor, within } from "@testing-library/svelte";
import { afterEach, beforeEach, expect, it } from "vitest";

import { chats } from "../lib/chats.svelte";
import { offers } from "../lib/menu.svelte";
import { shelf } from "../lib/shelf.svelte";
import { barriers, shown } from "../testing";
import { FakeNode, message } from "../testing/node";
import Chat from "../views/Chat.svelte";

let node: FakeNode;

// Roles are looked up slowly on a busy machine.
configure({ asyncUtilTimeout: 4000 });

beforeEach(() => {
  node = new FakeNode();
  mockIPC((command, given) => {
    if (command === "request") return node.request(given as never);
    if (command === "follow") return node.follow(given as never);
    return null;
  });
  Element.prototype.scrollTo = () => {};
  Element.prototype.scrollIntoView = () => {};
  HTMLDialogElement.prototype.showModal = function () {
    this.open = true;
  };
  HTMLDialogElement.prototype.close = function () {
    this.open = false;
  };
  localStorage.clear();
  chats.reset();
  shelf.reset();
});

afterEach(cleanup);

const field = (): HTMLTextAreaElement => screen.getByLabelText("Message…");
const click = (name: string | RegExp) => fireEvent.click(screen.getByRole("button", { name }));
const options = (): (string | undefined)[] => screen.getAllByRole("option").filter((option) => !(option instanceof HTMLOptionElement)).map((option) => option.firstElementChild?.textContent);
const finder = (): HTMLElement => screen.getByRole("combobox", { name: "Find a prompt" });
const type = (into: HTMLElement, value: string) => fireEvent.input(into, { target: { value } });

async function open(): Promise<void> {
  render(Chat, { shown, machines: () => {} });
  await waitFor(() => expect(chats.open.id).not.toBe(""));
}

async function openPanel(): Promise<HTMLSelectElement> {
  await open();
  await click("Instructions and sampling");
  return screen.getByLabelText("Preset");
}

function put(...names: string[]): void {
  for (const name of names) node.prompts.set(name, { id: name, name, text: `The text of ${name}`, starter: false });
}

it("saves the settings of a chat as a preset, and applies them to another", async () => {
  const select = await openPanel();
  await type(screen.getByLabelText("Instructions for this conversation"), "Rhyme");
  chats.prefer({ temperature: 0.9, max_tokens: 7 });
  await click("Save as preset…");
  const name = screen.getByLabelText("Name of the preset");
  expect(document.activeElement).toBe(name);
  await type(name, " Poet ");
  await fireEvent.keyDown(name, { key: "Enter" });
  await waitFor(() => expect([...node.presets.values()]).toMatchObject([{ name: "Poet", system: "Rhyme", for_new: false, choices: { temperature: 0.9, max_tokens: 7 } }]));
  const { id } = [...node.presets.values()][0]!;
  await waitFor(() => expect(screen.getByLabelText<HTMLSelectElement>("Preset").value).toBe(id));
  expect(await barriers()).toEqual([]);
  // Another chat.
  node.add("other", "Other", [message({ role: "user", text: "Hello" })]);
  await chats.show("other");
  await waitFor(() => expect(screen.getByLabelText<HTMLSelectElement>("Preset").value).toBe(""));
  expect(screen.queryByRole("button", { name: "Delete preset" })).toBeNull();
  await fireEvent.change(screen.getByLabelText("Preset"), { target: { value: id } });
  await chats.stop();
  expect(node.conversations.get("other")).toMatchObject({ system: "Rhyme", choices: { temperature: 0.9, max_tokens: 7 } });
  expect(select.isConnected).toBe(false);
});

it("renames, updates, deletes a preset, takes that back, and uses it for new chats", async () => {
  const choices = { model: null, temperature: 0.3, top_p: 0.95, max_tokens: null, options: [] };
  node.presets.set("p", { id: "p", name: "Poet", system: "Rhyme", choices, for_new: false });
  await openPanel();
  const select = (): HTMLSelectElement => screen.getByLabelText("Preset");
  await waitFor(() => expect(select().options).toHaveLength(2));
  await fireEvent.change(select(), { target: { value: "p" } });
  expect(chats.system).toBe("Rhyme");
  expect(screen.getByRole<HTMLButtonElement>("button", { name: "Update preset" }).disabled).toBe(true);
  chats.prefer({ temperature: 1.2 });
  await waitFor(() => expect(screen.getByRole<HTMLButtonElement>("button", { name: "Update preset" }).disabled).toBe(false));
  await click("Update preset");
  await waitFor(() => expect(node.presets.get("p")?.choices.temperature).toBe(1.2));
  await click("Rename preset…");
  const name = screen.getByLabelText<HTMLInputElement>("Name of the preset");
  expect(name.value).toBe("Poet");
  await type(name, "Bard");
  await click("Save");
  await waitFor(() => expect(node.presets.get("p")).toMatchObject({ name: "Bard", system: "Rhyme" }));
  await waitFor(() => screen.getByRole("option", { name: "Bard" }));
  await click("Use for new chats");
  await waitFor(() => expect(node.presets.get("p")?.for_new).toBe(true));
  await waitFor(() => expect(screen.getByRole("button", { name: "✓ Used for new chats" }).getAttribute("aria-pressed")).toBe("true"));
  await click("Delete preset");
  await waitFor(() => expect(node.presets.size).toBe(0));
  await screen.findByText("Deleted the preset “Bard”");
  await click("Undo");
  await waitFor(() => expect(node.presets.get("p")).toMatchObject({ name: "Bard", for_new: true }));
});

it("names a preset until Escape, which stops no answer", async () => {
  await openPanel();
  await click("Save as preset…");
  await fireEvent.keyDown(screen.getByLabelText("Name of the preset"), { key: "Escape" });
  expect(screen.queryByLabelText("Name of the preset")).toBeNull();
  expect(node.presets.size).toBe(0);
});

it("lets the model name new chats, or not", async () => {
  await openPanel();
  const box = screen.getByLabelText<HTMLInputElement>("Let the model name new chats");
  expect(box.checked).toBe(true);
  await fireEvent.click(box);
  await waitFor(() => expect(node.titles).toBe(false));
});

it("finds a prompt after a slash, and inserts it", async () => {
  put("Ants", "Bees", "Wasps");
  await open();
  field().focus();
  // Ctrl+/ lists the shortcuts instead.
  for (const held of [{ ctrlKey: true }, { metaKey: true }, { altKey: true }]) {
    expect(await fireEvent.keyDown(field(), { key: "/", ...held })).toBe(true);
  }
  expect(await fireEvent.keyDown(field(), { key: "/" })).toBe(false);
  await waitFor(() => expect(options()).toEqual(["Ants", "Bees", "Wasps"]));
  expect(document.activeElement).toBe(finder());
  const active = (): string | null | undefined => document.getElementById(finder().getAttribute("aria-activedescendant")!)?.firstElementChild?.textContent;
  expect(active()).toBe("Ants");
  await fireEvent.keyDown(finder(), { key: "ArrowUp" });
  expect(active()).toBe("Wasps");
  await fireEvent.keyDown(finder(), { key: "ArrowDown" });
  await fireEvent.keyDown(finder(), { key: "ArrowDown" });
  expect(active()).toBe("Bees");
  expect(screen.getByRole("option", { selected: true, name: /Bees/ })).toBeTruthy();
  expect(await barriers()).toEqual([]);
  await type(finder(), "was");
  expect([options(), active()]).toEqual([["Wasps"], "Wasps"]);
  await fireEvent.keyDown(finder(), { key: "Enter" });
  await waitFor(() => expect(document.activeElement).toBe(field()));
  expect([chats.draft, screen.queryByRole("listbox")]).toEqual(["The text of Wasps", null]);
  // A slash within a text is a slash.
  expect(await fireEvent.keyDown(field(), { key: "/" })).toBe(true);
  expect(screen.queryByRole("listbox")).toBeNull();
});

it("keeps what was typed after a slash that was meant as one", async () => {
  put("Ants");
  await open();
  await fireEvent.keyDown(field(), { key: "/" });
  await type(finder(), "usr/bin");
  await fireEvent.keyDown(finder(), { key: "Escape" });
  await waitFor(() => expect(document.activeElement).toBe(field()));
  expect(chats.draft).toBe("/usr/bin");
});

it("asks for the fields of a prompt", async () => {
  node.prompts.set("t", { id: "t", name: "Trip", text: "From {{from}} to {{to}} by {{from}}", starter: false });
  await open();
  await click("Insert a prompt (/)");
  await waitFor(() => expect(options()).toEqual(["Trip"]));
  await fireEvent.click(screen.getByRole("option", { name: /Trip/ }));
  const dialog = within(screen.getByRole("dialog", { name: "Trip" }));
  await type(dialog.getByLabelText("from"), "Rome");
  await type(dialog.getByLabelText("to"), "Bern");
  expect(await barriers()).toEqual([]);
  await fireEvent.click(dialog.getByRole("button", { name: "Insert" }));
  await waitFor(() => expect(chats.draft).toBe("From Rome to Bern by Rome"));
  expect(screen.queryByRole("dialog")).toBeNull();
});

it("edits and deletes prompts in the list, and takes that back", async () => {
  put("Ants");
  await open();
  await click("Insert a prompt (/)");
  await waitFor(() => expect(options()).toEqual(["Ants"]));
  await click("Edit “Ants”");
  await type(screen.getByLabelText("Name"), "Termites");
  await click("Save");
  await waitFor(() => expect(node.prompts.get("Ants")).toEqual({ id: "Ants", name: "Termites", text: "The text of Ants", starter: false }));
  await waitFor(() => expect(options()).toEqual(["Termites"]));
  await click("Delete “Termites”");
  await waitFor(() => expect(node.prompts.size).toBe(0));
  await screen.findByText("No prompts yet");
  await click("Undo");
  await waitFor(() => expect(options()).toEqual(["Termites"]));
});

it("saves a question as a prompt from its context menu", async () => {
  await open();
  node.add("c", "Bees", [message({ id: "q", role: "user", text: "What do bees do?" })]);
  await chats.show("c");
  const question = await screen.findByText("What do bees do?");
  offers(question).find((item) => item?.label === "Save as prompt…")!.act();
  expect((await screen.findByLabelText<HTMLTextAreaElement>("Text")).value).toBe("What do bees do?");
  expect(screen.getByRole<HTMLButtonElement>("button", { name: "Save" }).disabled).toBe(true);
  await type(screen.getByLabelText("Name"), "Bees");
  await click("Save");
  await waitFor(() => expect([...node.prompts.values()]).toMatchObject([{ name: "Bees", text: "What do bees do?", starter: false }]));
});
