/** A full chat continues in a new one, with a summary that its own model writes. */
import { mockIPC } from "@tauri-apps/api/mocks";
import { cleanup, fireEvent, render, screen, waitFor, within } from "@testing-library/svelte";
import { afterEach, beforeEach, expect, it } from "vitest";

import { compose } from "../lib/attachments";
import type { Snapshot } from "../lib/bindings";
import { chats } from "../lib/chats.svelte";
import type { Message } from "../lib/conversation";
import { summary } from "../lib/summary.svelte";
import { barriers } from "../testing";
import { FakeNode, message } from "../testing/node";
import Chat from "../views/Chat.svelte";

let node: FakeNode;
let full: Message[];

beforeEach(async () => {
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
  const computed = { tokens_per_s: 20, first_s: 1, context_tokens: 6800, context_limit: 8192, parts: [], unknown_options: [] };
  full = [message({ id: "q", role: "user", text: "Where to?" }), message({ id: "a", text: "Lisbon, by tram.", computed })];
  Object.assign(node.add("full", "Lisbon", full), { system: "Be brief.", choices: { ...chats.choices, model: "Qwen" } });
  render(Chat, { shown: { machines: [], loads: [] } as unknown as Snapshot, machines: () => {} });
  await waitFor(() => expect(chats.open.id).not.toBe(""));
  await chats.show("full");
});

afterEach(async () => {
  await summary.cancel();
  cleanup();
});

const cards = (): (string | null | undefined)[] => [...document.querySelectorAll(".files bdi")].map((name) => name.textContent);
const writing = (): Promise<HTMLElement> => screen.findByRole("group", { name: "Summary of “Lisbon”" });
/** The conversation in which the summary is written. */
const place = (): string => [...node.answering.keys()][0] ?? "";

async function begin(): Promise<string> {
  await screen.findByText(/This chat fills 83%/);
  await fireEvent.click(screen.getByRole("button", { name: "New chat with a summary" }));
  await writing();
  await waitFor(() => expect(node.conversations.get(place())?.archived).toBe(true));
  return chats.open.id;
}

it("a full chat offers a new one, with or without a summary", async () => {
  await screen.findByText(/This chat fills 83%/);
  const foot = document.querySelector<HTMLElement>(".filled")!;
  expect(within(foot).getAllByRole("button").map(({ textContent }) => textContent)).toEqual(["New chat", "New chat with a summary"]);
});

it("the chat's own model writes the summary, which goes with the first message of the new chat", async () => {
  const into = await begin();
  expect(into).not.toBe("full");
  await waitFor(() => expect(node.conversations.get(into)?.choices.model).toBe("Qwen"));
  expect(chats.system).toBe("Be brief.");
  const asked = node.conversations.get(place())!;
  expect([asked.choices.model, asked.choices.max_tokens, asked.title]).toEqual(["Qwen", 700, "Summary of “Lisbon”"]);
  expect(asked.messages[0]!.text).toContain("User: Where to?\n\nAssistant: Lisbon, by tram.");
  node.write(asked.id, "<think>Hm.</think>\n");
  node.write(asked.id, "They go to");
  await waitFor(async () => expect(within(await writing()).getByRole("log").textContent).toBe("They go to"));
  expect(await barriers()).toEqual([]);
  // What is typed meanwhile stays, and is not sent without the summary.
  await fireEvent.input(screen.getByLabelText("Message…"), { target: { value: "How long?" } });
  expect(screen.getByRole<HTMLButtonElement>("button", { name: "Send" }).disabled).toBe(true);
  node.end(asked.id, { text: "<think>Hm.</think>\nThey go to Lisbon." });
  await waitFor(() => expect(cards()).toEqual(["Summary of “Lisbon”"]));
  expect(screen.getByText("The summary goes with your next message. Open it to read or change it.").getAttribute("role")).toBe("status");
  expect(node.conversations.has(asked.id)).toBe(false);
  await fireEvent.click(screen.getByRole("button", { name: "Send" }));
  const text = compose("How long?", [{ name: "Summary of “Lisbon”", text: "They go to Lisbon." }]);
  await waitFor(() => expect(node.asked.at(-1)).toEqual(["POST", `/conversations/${into}/ask`, { text }]));
  expect(node.conversations.get("full")!.messages).toEqual(full);
});

it("a summary can be given up, and leaves nothing behind", async () => {
  const into = await begin();
  const asked = place();
  node.write(asked, "They");
  await fireEvent.click(within(await writing()).getByRole("button", { name: "Cancel" }));
  await waitFor(() => expect(screen.queryByRole("group", { name: /Summary/ })).toBeNull());
  await waitFor(() => expect(node.conversations.has(asked)).toBe(false));
  expect([chats.open.id, chats.draft]).toEqual([into, ""]);
  expect(node.conversations.get("full")!.messages).toEqual(full);
});

it("a summary that is done while another chat is open waits in its own", async () => {
  const into = await begin();
  await chats.show("full");
  expect(screen.queryByRole("group", { name: /Summary/ })).toBeNull();
  node.end(place(), { text: "They go to Lisbon." });
  await waitFor(() => expect(node.conversations.get(into)!.draft).toContain("They go to Lisbon."));
  expect(chats.draft).toBe("");
  await chats.show(into);
  await waitFor(() => expect(cards()).toEqual(["Summary of “Lisbon”"]));
});

it("less of the chat is tried if the model refuses it as too long, and that is said", async () => {
  full.unshift(message({ id: "q0", role: "user", text: "bees make honey ".repeat(1500) }));
  node.whole("full");
  await begin();
  const first = place();
  node.end(first, { text: "", complete: false }, "it is too long");
  await waitFor(() => expect(place()).not.toBe(first));
  await waitFor(() => expect(node.conversations.get(place())?.archived).toBe(true));
  expect(node.conversations.get(place())!.messages[0]!.text).not.toContain("bees");
  node.end(place(), { text: "Lisbon." });
  await screen.findByText(/^The chat was too long to summarise at once. The summary covers its last 2 messages of 3\./);
});

it("a summary that cannot be made is told of, with the reason", async () => {
  node.refused["/ask"] = "HiveMind is stopping";
  await screen.findByText(/This chat fills 83%/);
  await fireEvent.click(screen.getByRole("button", { name: "New chat with a summary" }));
  await waitFor(() => expect(screen.getByRole("alert").textContent).toBe("No summary was made: HiveMind is stopping. The chat itself is unchanged."));
  await waitFor(() => expect([...node.conversations.keys()].length).toBe(2));
  expect(screen.queryByRole("group", { name: /Summary/ })).toBeNull();
});
