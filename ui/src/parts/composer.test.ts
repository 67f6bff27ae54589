import { mockIPC } from "@tauri-apps/api/mocks";
import { cleanup, createEvent, fireEvent, render, screen, waitFor, within } from "@testing-library/svelte";
import axe from "axe-core";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { compose } from "../lib/attachments";
import type { Finding, HandedFile, Snapshot } from "../lib/bindings";
import { chats } from "../lib/chats.svelte";
import { type Dropped, drops } from "../lib/drops.svelte";
import type { PdfRead, readPdf } from "../lib/pdf";
import { FakeNode, message } from "../testing/node";
import Chat from "../views/Chat.svelte";

/** The pages of a PDF, as it is read; pdf.test.ts reads real ones. */
vi.mock("../lib/pdf", () => ({ readPdf: (...given: Parameters<typeof readPdf>) => reader(...given) }));
let reader: typeof readPdf;

const shown = { machines: [], loads: [] } as unknown as Snapshot;

let node: FakeNode;

beforeEach(() => {
  reader = () => Promise.resolve({ kind: "damaged" });
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

afterEach(cleanup);

const field = (): HTMLTextAreaElement => screen.getByLabelText("Message…");
const cards = (): (string | null | undefined)[] => [...document.querySelectorAll(".files bdi")].map((name) => name.textContent);
const alert = (): string | null => screen.getByRole("alert").textContent;

async function open(): Promise<string> {
  render(Chat, { shown, machines: () => {} });
  await waitFor(() => expect(chats.open.id).not.toBe(""));
  return chats.open.id;
}

const file = (name: string, text: string | Uint8Array<ArrayBuffer>, type = ""): File => new File([text], name, { type });

async function pick(...files: File[]): Promise<void> {
  const input = document.querySelector<HTMLInputElement>("input[type=file]")!;
  Object.defineProperty(input, "files", { value: files, configurable: true });
  Object.defineProperty(input, "value", { value: "", writable: true, configurable: true });
  await fireEvent.change(input);
}

function drag(kind: "dragEnter" | "dragOver" | "drop", files: File[], types = ["Files"]): Event {
  const place = screen.getByRole("log");
  const event = createEvent[kind](place);
  Object.defineProperty(event, "dataTransfer", { value: { types, files, dropEffect: "none" } });
  void fireEvent(place, event);
  return event;
}

/** Pastes; whether the field takes it. */
async function paste(text: string, files: File[] = []): Promise<boolean> {
  const event = new Event("paste", { bubbles: true, cancelable: true });
  Object.assign(event, { clipboardData: { getData: () => text, files } });
  return fireEvent(field(), event);
}

it("files from the picker are sent with the question, and the question shows them", async () => {
  const id = await open();
  const picker = vi.spyOn(HTMLInputElement.prototype, "click").mockReturnValue();
  await fireEvent.click(screen.getByRole("button", { name: "Attach files" }));
  expect(picker).toHaveBeenCalledOnce();
  picker.mockRestore();
  await pick(file("notes.md", "# Lisbon\n```\ntram 28\n```\n"), file("days.csv", "day,hours\n1,6\n"));
  const list = await screen.findByRole("list", { name: "Attached files" });
  expect(within(list).getByText("25 bytes · about 7 tokens")).toBeTruthy();
  expect(cards()).toEqual(["notes.md", "days.csv"]);
  expect(screen.getByText("Attached: notes.md, days.csv")).toBeTruthy();
  await fireEvent.input(field(), { target: { value: "How long?" } });
  await fireEvent.keyDown(field(), { key: "Enter" });
  await waitFor(() => expect(chats.answering).not.toBeNull());
  const text = "````file=notes.md\n# Lisbon\n```\ntram 28\n```\n\n````\n\n```file=days.csv\nday,hours\n1,6\n\n```\n\nHow long?";
  expect(node.asked.at(-1)).toEqual(["POST", `/conversations/${id}/ask`, { text }]);
  const question = screen.getByRole("listitem", { name: "You" });
  expect(cards()).toEqual(["notes.md", "days.csv"]);
  expect(question.querySelector(".text")?.textContent).toBe("How long?");
  expect(question.querySelector(".beginning")?.textContent).toBe("# Lisbon\n```\ntram 28");
  question.querySelector("details")!.open = true;
  expect((await within(question).findByRole("region", { name: "notes.md" })).textContent).toBe("# Lisbon\n```\ntram 28\n```\n");
  expect(field().value).toBe("");
});

it("files alone can be asked about", async () => {
  await open();
  expect(screen.getByRole<HTMLButtonElement>("button", { name: "Send" }).disabled).toBe(true);
  await pick(file("a.txt", "one"));
  await waitFor(() => expect(screen.getByRole<HTMLButtonElement>("button", { name: "Send" }).disabled).toBe(false));
  await fireEvent.click(screen.getByRole("button", { name: "Send" }));
  await waitFor(() => expect(node.asked.at(-1)?.[2]).toEqual({ text: "```file=a.txt\none\n```" }));
});

it("files that are not sent yet survive another chat, a reload and a refusal", async () => {
  node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: "One?" })]);
  const id = await open();
  await pick(file("a.txt", "one"));
  await waitFor(() => expect(cards()).toEqual(["a.txt"]));
  await fireEvent.input(field(), { target: { value: "And?" } });
  await chats.show("c");
  await waitFor(() => expect(cards()).toEqual([]));
  expect(field().value).toBe("");
  cleanup();
  chats.reset();
  await open();
  await waitFor(() => expect(cards()).toEqual(["a.txt"]));
  expect(field().value).toBe("And?");
  node.refused[`${id}/ask`] = "HiveMind is stopping";
  await fireEvent.keyDown(field(), { key: "Enter" });
  await waitFor(() => expect(alert()).toBe("HiveMind is stopping"));
  await waitFor(() => expect(cards()).toEqual(["a.txt"]));
  expect(field().value).toBe("And?");
});

it("a file that was being read when another chat was opened does not get into that", async () => {
  node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: "One?" })]);
  await open();
  let release: () => void = () => {};
  const slow = file("slow.txt", "one");
  const bytes = await slow.arrayBuffer();
  const whole = new Promise<ArrayBuffer>((done) => (release = () => done(bytes)));
  slow.arrayBuffer = () => whole;
  await pick(slow);
  await fireEvent.input(field(), { target: { value: "And?" } });
  await fireEvent.keyDown(field(), { key: "Enter" });
  expect(chats.answering).toBeNull();
  await chats.show("c");
  release();
  await waitFor(() => expect(alert()).toBe("slow.txt wasn’t attached, because you switched to another chat."));
  expect(chats.draft).toBe("");
});

it("a removed file is announced, and the focus goes to its neighbour, then to the field", async () => {
  await open();
  await pick(file("a.txt", "one"), file("b.txt", "two"));
  await fireEvent.click(await screen.findByRole("button", { name: "Remove a.txt" }));
  expect(cards()).toEqual(["b.txt"]);
  expect(screen.getByText("Removed a.txt").getAttribute("role")).toBe("status");
  await waitFor(() => expect(document.activeElement).toBe(screen.getByRole("button", { name: "Remove b.txt" })));
  await fireEvent.click(screen.getByRole("button", { name: "Remove b.txt" }));
  await waitFor(() => expect(document.activeElement).toBe(field()));
  expect(chats.draft).toBe("");
});

it("what cannot be attached is refused by name, and does not keep the rest out", async () => {
  await open();
  const png = file("cat.png", Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0), "image/png");
  await pick(file("a.zip", Uint8Array.of(80, 75, 0, 1)), file("b.pdf", "%PDF-1.7"), file("c.txt", "see"), png);
  await waitFor(() => expect(cards()).toEqual(["c.txt", "cat.png"]));
  expect(alert()).toContain("a.zip isn’t a text file");
  expect(alert()).toContain("b.pdf is damaged or isn’t a PDF.");
  expect(screen.getByText("This model can’t see pictures. It isn’t sent.")).toBeTruthy();
  await fireEvent.click(screen.getByRole("button", { name: "Send" }));
  await waitFor(() => expect(node.asked.at(-1)?.[2]).toEqual({ text: "```file=c.txt\nsee\n```" }));
  expect(screen.queryByText("cat.png")).toBeNull();
});

it("a PDF is a card with its pages and tokens, and is sent as its text", async () => {
  await open();
  node.count = (text) => text.length;
  reader = () => Promise.resolve({ kind: "text", text: "[Page 1]\nBees\n\n[Page 2]\nWax" });
  await pick(file("bees.pdf", "%PDF-1.7"));
  await waitFor(() => expect(cards()).toEqual(["bees.pdf"]));
  await waitFor(() => expect(screen.getByText("2 pages · 27 tokens")).toBeTruthy());
  await fireEvent.click(screen.getByRole("button", { name: "Send" }));
  await waitFor(() => expect(node.asked.at(-1)?.[2]).toEqual({ text: "```file=bees.pdf\n[Page 1]\nBees\n\n[Page 2]\nWax\n```" }));
});

it("each PDF that cannot be attached is told of, and what to do about it", async () => {
  await open();
  const reads: [PdfRead, string][] = [
    [{ kind: "scan" }, "a.pdf has pictures of pages but no text. Run text recognition (OCR) on it, then attach the result."],
    [{ kind: "locked" }, "a.pdf needs a password. Save a copy without one, and attach that."],
    [{ kind: "damaged" }, "a.pdf is damaged or isn’t a PDF."],
    [{ kind: "pages", pages: 2400 }, "a.pdf has 2,400 pages; at most 1,000 can be read. Attach a part of it."],
    [{ kind: "heavy" }, "a.pdf is larger than 200 MB. Attach a part of it."],
    [{ kind: "overlong", page: 212, pages: 900 }, "a.pdf doesn’t fit: one message holds about the first 212 of its 900 pages. Attach a part of it."],
  ];
  for (const [found, said] of reads) {
    reader = () => Promise.resolve(found);
    await pick(file("a.pdf", "%PDF-1.7"));
    await waitFor(() => expect(alert()).toBe(said));
  }
  expect(cards()).toEqual([]);
});

it("a long PDF says how far it is, and can be given up", async () => {
  await open();
  await fireEvent.input(field(), { target: { value: "Why?" } });
  let stopped = false;
  reader = (_, progress, signal) => {
    progress(12, 300);
    return new Promise((done) => signal.addEventListener("abort", () => ((stopped = true), done({ kind: "cancelled" }))));
  };
  await pick(file("long.pdf", "%PDF-1.7"));
  const bar = await screen.findByRole<HTMLProgressElement>("progressbar", { name: "Reading long.pdf: page 12 of 300" });
  expect([bar.value, bar.max]).toEqual([12, 300]);
  expect(screen.getByRole<HTMLButtonElement>("button", { name: "Send" }).disabled).toBe(true);
  await fireEvent.click(screen.getByRole("button", { name: "Stop reading long.pdf" }));
  await waitFor(() => expect(screen.queryByRole("progressbar")).toBeNull());
  expect([stopped, cards(), screen.queryByRole("alert")]).toEqual([true, [], null]);
  expect(screen.getByRole<HTMLButtonElement>("button", { name: "Send" }).disabled).toBe(false);
});

it("the text of a card can be changed before it is sent", async () => {
  await open();
  await pick(file("a.txt", "one"), file("b.txt", "two"));
  await waitFor(() => expect(cards()).toEqual(["a.txt", "b.txt"]));
  document.querySelectorAll("details")[1]!.open = true;
  await fireEvent.input(await screen.findByRole("textbox", { name: "Text of b.txt" }), { target: { value: "three" } });
  expect(chats.draft).toBe(compose("", [{ name: "a.txt", text: "one" }, { name: "b.txt", text: "three" }]));
});

it("more than fits is refused, and it is said by how much", async () => {
  await open();
  await pick(file("a.txt", "x".repeat(300_000)), file("b.txt", "x".repeat(100_000)), file("c.txt", "fits"));
  await waitFor(() => expect(cards()).toEqual(["a.txt", "c.txt"]));
  // The two fences and names count as well.
  expect(alert()).toBe("b.txt doesn’t fit: this message would be too long by about 38 characters.");
  await pick(file("d.log", "x".repeat(3_000_000)));
  await waitFor(() => expect(alert()).toContain("d.log doesn’t fit: this message would be too long by about 900,0"));
  expect(await paste("x".repeat(200_000))).toBe(false);
  await waitFor(() => expect(alert()).toContain("Too long for any model here, by about 100,0"));
  expect(cards()).toEqual(["a.txt", "c.txt"]);
});

it("a long paste becomes a card, which can become text again; a short one is text", async () => {
  await open();
  expect(await paste("short")).toBe(true);
  await fireEvent.input(field(), { target: { value: "Before after" } });
  field().setSelectionRange(7, 7);
  const long = "row\r\n".repeat(1000);
  expect(await paste(long)).toBe(false);
  await waitFor(() => expect(cards()).toEqual(["Pasted text"]));
  expect(chats.draft).toBe(compose("Before after", [{ name: "Pasted text", text: long }]));
  await fireEvent.click(screen.getByRole("button", { name: "Insert as text" }));
  const rows = "row\n".repeat(1000);
  await waitFor(() => expect(field().value).toBe(`Before ${rows}after`));
  expect(cards()).toEqual([]);
  await waitFor(() => expect([document.activeElement, field().selectionStart]).toEqual([field(), 7 + rows.length]));
});

it("pasted files are attached; a picture that comes with its text is not", async () => {
  await open();
  const picture = file("image.png", "", "image/png");
  expect(await paste("a\tb", [picture])).toBe(true);
  expect(await paste("a.txt", [file("a.txt", "one")])).toBe(false);
  await waitFor(() => expect(cards()).toEqual(["a.txt"]));
  expect(await paste("", [picture])).toBe(false);
  await waitFor(() => expect(cards()).toEqual(["a.txt", "image.png"]));
});

it("files can be dropped onto the chat, which shows where", async () => {
  await open();
  expect(drag("dragEnter", [], ["text/plain"]).defaultPrevented).toBe(false);
  expect(screen.queryByText("Drop files to attach them")).toBeNull();
  expect(drag("dragEnter", []).defaultPrevented).toBe(true);
  const zone = (await screen.findByText("Drop files to attach them")).parentElement!;
  await fireEvent.dragLeave(zone);
  expect(screen.queryByText("Drop files to attach them")).toBeNull();
  const over = drag("dragOver", []) as DragEvent;
  expect([over.defaultPrevented, over.dataTransfer?.dropEffect]).toEqual([true, "copy"]);
  await screen.findByText("Drop files to attach them");
  expect(drag("drop", [file("a.txt", "one")]).defaultPrevented).toBe(true);
  await waitFor(() => expect(cards()).toEqual(["a.txt"]));
  expect(screen.queryByText("Drop files to attach them")).toBeNull();
});

it("files that the web view keeps from the page are attached as well, and a model is added instead", async () => {
  const add = vi.fn();
  const told = (number: number, name: string, found: Finding): HandedFile => ({ number, name, bytes: 3, found });
  const handed = [told(1, "a.txt", { kind: "other" }), told(2, "b.gguf", { kind: "model", path: "/m/b.gguf" }), told(3, "folder", { kind: "other" })];
  mockIPC((command, given) => {
    if (command === "request") return node.request(given as never);
    if (command === "follow") return node.follow(given as never);
    if (command === "dropped_files") return handed;
    // As an error of a command: an object, not an Error.
    // eslint-disable-next-line @typescript-eslint/only-throw-error
    if (command === "read_handed" && (given as { number: number }).number === 3) throw { code: "not_read", message: "it is no file", hint: null };
    return command === "read_handed" ? btoa("one") : null;
  });
  const stop = drops.hear();
  render(Chat, { shown, machines: () => {}, add });
  await waitFor(() => expect(chats.open.id).not.toBe(""));
  window.dispatchEvent(new Event("filesover"));
  await screen.findByText("Drop files to attach them");
  window.dispatchEvent(new Event("filesdropped"));
  await waitFor(() => expect(cards()).toEqual(["a.txt"]));
  expect(chats.draft).toContain("one");
  expect(alert()).toBe("folder can’t be read. If it’s a folder, attach its files instead.");
  await waitFor(() => expect(add).toHaveBeenCalledOnce());
  expect((add.mock.calls[0]![0] as Dropped[]).map(({ file }) => file.name)).toEqual(["b.gguf"]);
  expect(screen.queryByText("Drop files to attach them")).toBeNull();
  stop();
});

it("an edited question keeps its files, or loses those that are removed", async () => {
  const files = [{ name: "a.txt", text: "one" }, { name: "b.txt", text: "two" }];
  node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: compose("Which?", files) }), message({ id: "a1", text: "1" })]);
  await open();
  await chats.show("c");
  const question = await screen.findByRole("listitem", { name: "You" });
  await fireEvent.click(within(question).getByRole("button", { name: "Edit" }));
  await fireEvent.input(screen.getByDisplayValue("Which?"), { target: { value: "Why?" } });
  await fireEvent.click(within(question).getByRole("button", { name: "Remove a.txt" }));
  await fireEvent.click(within(question).getByRole("button", { name: "Send" }));
  await waitFor(() =>
    expect(node.asked.at(-1)).toEqual(["POST", "/conversations/c/ask", { text: "```file=b.txt\ntwo\n```\n\nWhy?", edited: "q1" }]),
  );
});

it("a draft of many tokens says about how many, and a short one does not", async () => {
  await open();
  await fireEvent.input(field(), { target: { value: "x".repeat(700) } });
  expect(screen.queryByText(/tokens/)).toBeNull();
  await fireEvent.input(field(), { target: { value: "x".repeat(4900) } });
  expect(screen.getByText("about 1,200 tokens")).toBeTruthy();
});

it("the tokens of a draft are estimated while it is typed, and counted by the model after the last letter", async () => {
  const asked: string[] = [];
  node.count = (text) => (asked.push(text), 1234);
  await open();
  await fireEvent.input(field(), { target: { value: "x".repeat(4000) } });
  await fireEvent.input(field(), { target: { value: "x".repeat(4900) } });
  expect(screen.getByText("about 1,200 tokens")).toBeTruthy();
  expect(asked).toEqual([]);
  await waitFor(() => expect(screen.getByText("1,234 tokens")).toBeTruthy());
  expect(asked).toEqual(["x".repeat(4900)]);
  // Another letter: what was counted is of another text.
  await fireEvent.input(field(), { target: { value: "x".repeat(5800) } });
  expect(screen.getByText("about 1,500 tokens")).toBeTruthy();
});

it("everybody can use it", async () => {
  node.add("c", "Lisbon", [message({ id: "q1", role: "user", text: compose("", [{ name: "a.txt", text: "one" }]) })]);
  await open();
  await chats.show("c");
  await pick(file("b.txt", "two"), file("cat.png", "", "image/png"));
  await waitFor(() => expect(cards()).toEqual(["a.txt", "b.txt", "cat.png"]));
  for (const card of document.querySelectorAll("details")) card.open = true;
  await screen.findByRole("region", { name: "a.txt" });
  expect((await screen.findByRole<HTMLTextAreaElement>("textbox", { name: "Text of b.txt" })).value).toBe("two");
  const found = await axe.run(document.body, { rules: { "color-contrast": { enabled: false }, region: { enabled: false } } });
  expect(found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`)).toEqual([]);
  // The field is the first stop of the composer.
  const stops = [...document.querySelector(".box")!.querySelectorAll("textarea, button")];
  expect(stops[0]).toBe(field());
});
