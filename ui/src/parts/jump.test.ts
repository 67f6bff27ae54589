import { mockIPC } from "@tauri-apps/api/mocks";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/svelte";
import axe from "axe-core";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { chats } from "../lib/chats.svelte";
import { FakeNode, message } from "../testing/node";
import Jump from "./Jump.svelte";

beforeEach(() => {
  const node = new FakeNode();
  node.add("c", "Lisbon", [message({ id: "q", role: "user", text: "By tram" })]);
  node.add("d", "Dates", [message({ id: "p", role: "user", text: "When" })]);
  mockIPC((command, given) => (command === "request" ? node.request(given as never) : command === "follow" ? node.follow(given as never) : null));
  // jsdom has no dialogs.
  HTMLDialogElement.prototype.showModal = function () {
    this.open = true;
  };
  HTMLDialogElement.prototype.close = function () {
    this.open = false;
  };
  chats.reset();
});

afterEach(cleanup);

it("leads to pages and chats by the keyboard", async () => {
  const [go, chat, close] = [vi.fn(), vi.fn(), vi.fn()];
  render(Jump, { pages: [{ name: "Machines", go }], chat, close });
  await waitFor(() => expect(screen.getAllByRole("option", { hidden: true }).length).toBe(3));
  const found = await axe.run(document.body, { rules: { "color-contrast": { enabled: false }, region: { enabled: false } } });
  expect(found.violations.map(({ id }) => id)).toEqual([]);
  const field = screen.getByRole("combobox", { hidden: true });
  await fireEvent.keyDown(field, { key: "Enter" });
  expect([go.mock.calls.length, close.mock.calls.length]).toEqual([1, 1]);
  await fireEvent.input(field, { target: { value: "tram" } });
  await waitFor(() => expect(screen.getAllByRole("option", { hidden: true }).map((one) => one.textContent?.trim())).toEqual(["Lisbon By tram"]));
  await fireEvent.keyDown(field, { key: "ArrowUp" });
  await fireEvent.keyDown(field, { key: "Enter", isComposing: true });
  expect(chat).not.toHaveBeenCalled();
  await fireEvent.keyDown(field, { key: "Enter" });
  await waitFor(() => expect(chats.open.id).toBe("c"));
  expect(chat).toHaveBeenCalled();
  await fireEvent.input(field, { target: { value: "zebra" } });
  await waitFor(() => expect(screen.getByText("No matches")).toBeTruthy());
});
