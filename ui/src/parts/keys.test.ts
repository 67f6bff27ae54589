/** A shortcut is chosen by pressing it. */
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/svelte";
import { afterEach, expect, it } from "vitest";

import { chosenKeys, shownKeys } from "../lib/chosen-keys";
import { settings } from "../lib/preferences.svelte";
import { Backend, barriers, preferences } from "../testing";
import Keys from "./Keys.svelte";

afterEach(() => {
  cleanup();
  settings.refused = {};
});

async function open(chosen: string | null): Promise<Backend> {
  const app = new Backend();
  app.answers.preferences = () => ({ ...preferences, quick_ask: chosen });
  app.answers.change = ({ change }) => {
    const { value } = change as { value: string };
    if (value === "CmdOrCtrl+Q") return { preferences: { ...preferences, quick_ask: chosen }, refused: { kind: "shortcut_taken" } };
    return { preferences: { ...preferences, quick_ask: value || null }, refused: null };
  };
  await settings.open();
  render(Keys, { field: "quick_ask", label: "Ask", explained: "Why" });
  return app;
}

const field = (): HTMLInputElement => screen.getByRole("textbox", { name: "Ask" });
const press = (key: string, code: string, held: Partial<KeyboardEvent> = {}) => fireEvent.keyDown(field(), { key, code, ...held });

it("what is pressed is chosen, and is shown as keyboards have it", async () => {
  const app = await open(null);
  expect([field().value, field().placeholder]).toEqual(["", "Off"]);
  await fireEvent.focus(field());
  expect(field().placeholder).toBe("Press keys…");
  await press("Control", "ControlLeft", { ctrlKey: true });
  await press("Shift", "ShiftLeft", { ctrlKey: true, shiftKey: true });
  expect(app.of("change")).toEqual([]);
  expect(await press(" ", "Space", { ctrlKey: true, shiftKey: true })).toBe(false);
  await waitFor(() => expect(field().value).toBe("Ctrl+Shift+Space"));
  expect(app.of("change")).toEqual([{ change: { field: "quick_ask", value: "CmdOrCtrl+Shift+Space" } }]);
  expect(await barriers()).toEqual([]);
});

it("is removed with a button or a key, and Tab leads on", async () => {
  const app = await open("F9");
  await press("Backspace", "Backspace");
  await waitFor(() => expect(field().value).toBe(""));
  cleanup();
  await open("F9");
  await fireEvent.click(screen.getByRole("button", { name: "Remove the shortcut" }));
  await waitFor(() => expect(field().value).toBe(""));
  expect(await press("Tab", "Tab")).toBe(true);
  expect(app.of("change").length).toBe(1);
});

it("one that cannot be used is refused, and the one before stays", async () => {
  await open("F9");
  await press("q", "KeyQ", { ctrlKey: true });
  await waitFor(() => expect(screen.getByRole("alert").textContent).toBe("Another program uses these keys. Choose others."));
  expect([field().value, field().getAttribute("aria-invalid")]).toEqual(["F9", "true"]);
});

it("keys have the names that the app knows", () => {
  const keys = (code: string, held: KeyboardEventInit = {}) => chosenKeys(new KeyboardEvent("keydown", { key: "x", code, ...held }));
  expect(keys("KeyA", { altKey: true, metaKey: true })).toBe("Alt+Super+A");
  expect(keys("Digit1", { ctrlKey: true })).toBe("CmdOrCtrl+1");
  expect(keys("ArrowUp", { ctrlKey: true })).toBe("CmdOrCtrl+ArrowUp");
  expect(keys("")).toBeNull();
  expect(shownKeys("CmdOrCtrl+ArrowUp")).toBe("Ctrl+Up");
});
