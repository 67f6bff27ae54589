/** A question from the popover, answered there. */
import { mockIPC } from "@tauri-apps/api/mocks";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/svelte";
import { afterEach, beforeEach, expect, it } from "vitest";

import { barriers } from "../testing";
import { FakeNode } from "../testing/node";
import QuickAsk from "./QuickAsk.svelte";

let node: FakeNode;
/** Other commands that were called, with what they were given. */
let called: [string, unknown][];

beforeEach(() => {
  node = new FakeNode();
  called = [];
  mockIPC((command, given) => {
    if (command === "request") return node.request(given as never);
    if (command === "follow") return node.follow(given as never);
    called.push([command, given]);
    return null;
  });
  render(QuickAsk);
});

afterEach(cleanup);

const field = (): HTMLTextAreaElement => screen.getByRole("textbox", { name: "Ask something…" });
const answer = (): string | null | undefined => screen.queryByRole("log")?.textContent?.trim();
/** The conversation that is being answered. */
const asked = (): string => [...node.answering.keys()][0] ?? "";

async function ask(text: string): Promise<string> {
  await fireEvent.input(field(), { target: { value: text } });
  await fireEvent.keyDown(field(), { key: "Enter" });
  await waitFor(() => expect(asked()).not.toBe(""));
  return asked();
}

it("a question is answered word by word, in a conversation of its own", async () => {
  // What is written in a new chat stays there.
  node.add("draft", "", []);
  const id = await ask("Capital of France?");
  expect(id).not.toBe("draft");
  expect(node.asked.at(-1)).toEqual(["POST", `/conversations/${id}/ask`, { text: "Capital of France?" }]);
  await waitFor(() => expect(field().value).toBe(""));
  node.write(id, "Par");
  await waitFor(() => expect(answer()).toBe("Par"));
  node.write(id, "is.");
  await waitFor(() => expect(answer()).toBe("Paris."));
  expect(screen.queryByRole("button")).toBeNull();
  node.end(id);
  await screen.findByRole("button", { name: "Open in Chat" });
  expect(await barriers()).toEqual([]);
  await fireEvent.click(screen.getByRole("button", { name: "Open in Chat" }));
  expect(called).toEqual([["show_conversation", { id }]]);
});

it("another question follows the first, and a new one starts over", async () => {
  const id = await ask("Capital of France?");
  node.end(id, { text: "Paris." });
  await screen.findByRole("button", { name: "New question" });
  expect(await ask("And of Spain?")).toBe(id);
  node.end(id, { text: "Madrid." });
  await waitFor(() => expect(answer()).toBe("Madrid."));
  await fireEvent.click(await screen.findByRole("button", { name: "New question" }));
  expect(answer()).toBeUndefined();
  expect(await ask("Why?")).not.toBe(id);
});

it("nothing is asked twice, or without a word, or in the middle of a line", async () => {
  await fireEvent.keyDown(field(), { key: "Enter" });
  await fireEvent.input(field(), { target: { value: " \n" } });
  await fireEvent.keyDown(field(), { key: "Enter" });
  await fireEvent.input(field(), { target: { value: "Why?" } });
  await fireEvent.keyDown(field(), { key: "Enter", shiftKey: true });
  await fireEvent.keyDown(field(), { key: "Enter", isComposing: true });
  expect(node.asked).toEqual([]);
  const id = await ask("Why?");
  await fireEvent.input(field(), { target: { value: "And how?" } });
  await fireEvent.keyDown(field(), { key: "Enter" });
  expect(node.asked.filter(([, path]) => path.endsWith("/ask")).length).toBe(1);
  node.end(id, { text: "So." });
  await waitFor(() => expect(answer()).toBe("So."));
  expect(field().value).toBe("And how?");
});

it("Escape stops an answer and leaves the popover open; without one it is the popover's", async () => {
  const id = await ask("Count");
  node.write(id, "One, two");
  await waitFor(() => expect(answer()).toBe("One, two"));
  let reached = 0;
  const count = (event: KeyboardEvent): void => void (event.key === "Escape" && reached++);
  addEventListener("keydown", count);
  await fireEvent.keyDown(field(), { key: "Escape" });
  await waitFor(() => expect(node.asked.at(-1)?.[1]).toBe(`/conversations/${id}/stop`));
  await screen.findByRole("button", { name: "New question" });
  expect([reached, answer()]).toEqual([0, "One, two"]);
  await fireEvent.keyDown(field(), { key: "Escape" });
  removeEventListener("keydown", count);
  expect(reached).toBe(1);
});

it("a refusal and an answer that breaks off say why, and the question stays", async () => {
  node.refused["/ask"] = "HiveMind is stopping";
  await fireEvent.input(field(), { target: { value: "Why?" } });
  await fireEvent.keyDown(field(), { key: "Enter" });
  await waitFor(() => expect(screen.getByRole("alert").textContent).toBe("HiveMind is stopping"));
  expect(field().value).toBe("Why?");
  node.refused = {};
  const id = await ask("Why?");
  node.end(id, { text: "Be", complete: false }, "all machines left");
  await waitFor(() => expect(screen.getByRole("alert").textContent).toBe("All machines left"));
  expect(answer()).toBe("Be");
});

it("the field has the focus once the shortcut is pressed", () => {
  field().blur();
  dispatchEvent(new Event("quickask"));
  expect(document.activeElement).toBe(field());
});
