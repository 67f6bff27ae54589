import { cleanup, fireEvent, render, screen, waitFor, within } from "@testing-library/svelte";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { Change, Preferences, Refused } from "../lib/bindings";
import { library } from "../lib/library.svelte";
import { settings } from "../lib/preferences.svelte";
import { Backend, barriers, preferences, shown } from "../testing";
import Settings from "./Settings.svelte";

let backend: Backend;
/** What is saved. */
let saved: Preferences;
/** Why the next change is refused. */
let refuse: Refused | null;

beforeEach(() => {
  backend = new Backend();
  [saved, refuse] = [preferences, null];
  Object.assign(settings, { now: undefined, refused: {}, typed: {}, saved: undefined, problem: "" });
  Object.assign(library, { models: [], unusable: [], read: false });
  localStorage.clear();
  backend.answers.preferences = () => saved;
  backend.answers.change = ({ change }) => {
    const { field, value } = change as Change;
    if (!refuse) saved = { ...saved, [field]: value };
    return { preferences: saved, refused: refuse };
  };
});

afterEach(() => {
  cleanup();
  vi.useRealTimers();
  Reflect.deleteProperty(navigator, "clipboard");
});

const changes = () => backend.of("change").map(({ change }) => change);
const field = (name: string) => screen.findByLabelText<HTMLInputElement>(name);

async function type(name: string, value: string): Promise<HTMLInputElement> {
  const input = await field(name);
  await fireEvent.input(input, { target: { value } });
  return input;
}

describe("settings", () => {
  it("are saved as they are changed, without a button", async () => {
    render(Settings, { shown });
    await fireEvent.click(await screen.findByRole("radio", { name: "Blue" }));
    await fireEvent.click(screen.getByRole("checkbox", { name: "Only on mains power" }));
    await fireEvent.change(screen.getByLabelText("Theme"), { target: { value: "dark" } });
    await fireEvent.keyDown(await type("Name on other machines", "Attic"), { key: "Enter" });
    await waitFor(() =>
      expect(changes()).toEqual([
        { field: "accent", value: "blue" },
        { field: "only_on_power", value: true },
        { field: "look", value: "dark" },
        { field: "name", value: "Attic" },
      ]),
    );
    expect(screen.queryByRole("button", { name: "Save" })).toBeNull();
    await waitFor(() => expect(screen.getAllByRole("status").some((status) => status.textContent === "Saved")).toBe(true));
    expect(await barriers()).toEqual([]);
  });

  it("are saved after a pause, and when a field or the page is left", async () => {
    render(Settings, { shown });
    await field("Name on other machines");
    vi.useFakeTimers();
    await type("Name on other machines", "At");
    expect(changes()).toEqual([]);
    await vi.advanceTimersByTimeAsync(1000);
    expect(changes()).toEqual([{ field: "name", value: "At" }]);
    await fireEvent.blur(await type("Name on other machines", "Attic"));
    await vi.advanceTimersByTimeAsync(0);
    expect(changes()).toHaveLength(2);
    await type("Upload limit to other machines", "50");
    cleanup();
    await vi.advanceTimersByTimeAsync(0);
    expect(changes()[2]).toEqual({ field: "bandwidth_mbit_per_s", value: "50" });
  });

  it("say what is wrong beside its field, keep what was typed, and save the rest", async () => {
    refuse = { kind: "whole", least: 1, most: 1440 };
    render(Settings, { shown });
    const minutes = await type("Only when idle for", "2.5");
    await fireEvent.blur(minutes);
    const wrong = await screen.findByText("Enter a whole number from 1 to 1,440.");
    expect(minutes.getAttribute("aria-invalid")).toBe("true");
    expect(minutes.getAttribute("aria-describedby")).toContain(wrong.id);
    expect(screen.queryByText("Saved")).toBeNull();
    expect(await barriers()).toEqual([]);
    // Another page, and back.
    cleanup();
    render(Settings, { shown });
    expect((await field("Only when idle for")).value).toBe("2.5");
    expect(screen.getByText("Enter a whole number from 1 to 1,440.")).toBeTruthy();
    refuse = null;
    await fireEvent.click(screen.getByRole("checkbox", { name: "Open at login" }));
    await waitFor(() => expect(saved.open_at_login).toBe(true));
    await fireEvent.blur(await type("Only when idle for", "10"));
    await waitFor(() => expect(screen.queryByText("Enter a whole number from 1 to 1,440.")).toBeNull());
    expect(settings.typed).toEqual({});
  });

  it("call nothing wrong while it is being typed", async () => {
    refuse = { kind: "loopback" };
    render(Settings, { shown });
    await field("Local API address");
    vi.useFakeTimers();
    await type("Local API address", "127.0");
    await vi.advanceTimersByTimeAsync(1000);
    expect(changes()).toHaveLength(1);
    expect(screen.queryByText(/Enter an address of this machine/)).toBeNull();
    await fireEvent.blur(await field("Local API address"));
    await vi.advanceTimersByTimeAsync(0);
    expect(screen.getByText(/Enter an address of this machine/)).toBeTruthy();
  });

  it("give memory a unit, so that 8 is never 8 bytes", async () => {
    render(Settings, { shown: { ...shown, memory: { ...shown.memory, cap: 8.6e9 } } });
    expect((await field("Memory limit")).value).toBe("8.6");
    expect((await field("Memory limit: unit")).value).toBe("GB");
    const memory = await type("Memory limit", "8");
    await fireEvent.keyDown(memory, { key: "Enter" });
    await waitFor(() => expect(changes()).toEqual([{ field: "memory", value: "8 GB" }]));
    await type("Memory limit", "500");
    await fireEvent.change(screen.getByLabelText("Memory limit: unit"), { target: { value: "MB" } });
    await waitFor(() => expect(changes()[1]).toEqual({ field: "memory", value: "500 MB" }));
    await fireEvent.blur(await type("Memory limit", ""));
    await waitFor(() => expect(changes()[2]).toEqual({ field: "memory", value: "" }));
    refuse = { kind: "memory", least: 1e8, most: 24e9 };
    await fireEvent.blur(await type("Memory limit", "900"));
    await screen.findByText("Enter 100 MB to 24.0 GB. To share nothing, turn sharing off.");
  });

  it("that wait for a restart say so beside themselves, with a button", async () => {
    saved = { ...preferences, name: "Attic", restart: ["name"] };
    render(Settings, { shown });
    await screen.findByText("Takes effect after a restart.");
    await fireEvent.click(screen.getByRole("button", { name: "Restart" }));
    expect(backend.of("restart")).toHaveLength(1);
  });

  it("offer a relay by name, or one's own by its URL", async () => {
    render(Settings, { shown });
    const relay = await field("Relay");
    await fireEvent.change(relay, { target: { value: "public" } });
    await waitFor(() => expect(changes()).toEqual([{ field: "relay", value: "public" }]));
    expect(screen.queryByLabelText("Relay URL")).toBeNull();
    await fireEvent.change(relay, { target: { value: "own" } });
    await fireEvent.blur(await type("Relay URL", "https://relay.example.org"));
    await waitFor(() => expect(saved.relay).toBe("https://relay.example.org"));
  });

  it("are reset only when their owner says so twice", async () => {
    backend.answers.reset_settings = () => preferences;
    render(Settings, { shown });
    await fireEvent.click(await screen.findByRole("button", { name: "Reset…" }));
    await fireEvent.click(screen.getByRole("button", { name: "Cancel" }));
    expect(backend.of("reset_settings")).toHaveLength(0);
    await fireEvent.click(screen.getByRole("button", { name: "Reset…" }));
    await fireEvent.click(screen.getByRole("button", { name: "Reset" }));
    expect(backend.of("reset_settings")).toHaveLength(1);
  });

  it("show where data and log are, and the version", async () => {
    render(Settings, { shown });
    await screen.findByText("/home/me/.local/share/hivemind");
    expect(screen.getByText("HiveMind 0.1.0 · WebKit 2.44 · linux x86_64")).toBeTruthy();
    await fireEvent.click(screen.getByRole("button", { name: "Open Folder" }));
    await fireEvent.click(screen.getByRole("button", { name: "Open Log" }));
    expect([backend.of("show_folder"), backend.of("show_log")].map((calls) => calls.length)).toEqual([1, 1]);
    backend.answers.show_folder = () => {
      throw { code: "not_shown", message: "there is no file manager", hint: null };
    };
    await fireEvent.click(screen.getByRole("button", { name: "Open Folder" }));
    await screen.findByText("There is no file manager");
  });

  it("lead an update on by one button", async () => {
    const { rerender } = render(Settings, { shown: { ...shown, update: { kind: "found", version: "9.9.9", notes: "Faster." } } });
    await screen.findByText("Version 9.9.9 is available.");
    await fireEvent.click(screen.getByRole("button", { name: "Install" }));
    expect(backend.of("update")).toHaveLength(1);
    await rerender({ shown: { ...shown, update: { kind: "fetching", version: "9.9.9", percent: 40 } } });
    expect(screen.getByText("Downloading version 9.9.9: 40%")).toBeTruthy();
    await rerender({ shown: { ...shown, update: { kind: "ready", version: "9.9.9" } } });
    expect(screen.getByText("Version 9.9.9 is ready. Restart to update; your other machines take over meanwhile.")).toBeTruthy();
    expect(screen.getByRole("button", { name: "Restart to Update" })).toBeTruthy();
  });
});

describe("the API", () => {
  it("shows its address, an example, and a key once", async () => {
    const writeText = vi.fn().mockResolvedValue(undefined);
    Object.defineProperty(navigator, "clipboard", { configurable: true, value: { writeText } });
    backend.answers.add_program = () => "hive-abc";
    render(Settings, { shown });
    const card = within(await screen.findByRole("region", { name: "API for programs" }));
    await fireEvent.click(await card.findByRole("button", { name: "Copy address" }));
    expect(writeText).toHaveBeenLastCalledWith("http://127.0.0.1:4483/v1");
    await card.findByText("Copied", { selector: "button" });
    expect(card.getByRole("region", { name: "Example" }).textContent).toContain("Bearer YOUR_KEY");
    await fireEvent.input(card.getByLabelText("New key"), { target: { value: " editor " } });
    backend.answers.programs = () => ({
      url: "http://127.0.0.1:4483",
      off: null,
      tokens: [{ name: "editor", may: ["chat", "models"], used_days_ago: null }],
    });
    await fireEvent.click(card.getByRole("button", { name: "Create" }));
    expect(backend.of("add_program")).toEqual([{ name: "editor" }]);
    await card.findByText("Copy the key for editor now. It isn’t shown again.");
    await waitFor(() => expect(card.getByText("Never used")).toBeTruthy());
    await fireEvent.click(card.getByRole("button", { name: "Copy key for editor" }));
    expect(writeText).toHaveBeenLastCalledWith("hive-abc");
    await fireEvent.click(card.getByRole("button", { name: "Copy example" }));
    const example = String(writeText.mock.lastCall?.[0]);
    expect(example).toContain('curl http://127.0.0.1:4483/v1/chat/completions \\\n  -H "Authorization: Bearer hive-abc"');
    expect(example).toContain(`-d '{"model":"Llama","messages":[{"role":"user","content":"Hello"}]}'`);
    expect(await barriers()).toEqual([]);
    cleanup();
    render(Settings, { shown });
    await screen.findByRole("button", { name: "Revoke the key for editor" });
    expect(document.body.textContent).not.toContain("hive-abc");
  });

  it("takes a key back when its owner says so twice", async () => {
    backend.answers.programs = () => ({
      url: "http://127.0.0.1:4483",
      off: null,
      tokens: [{ name: "editor", may: ["chat"], used_days_ago: 3 }],
    });
    render(Settings, { shown });
    await screen.findByText("Used 3 days ago");
    await fireEvent.click(screen.getByRole("button", { name: "Revoke the key for editor" }));
    expect(backend.of("revoke_program")).toEqual([]);
    await fireEvent.click(screen.getByRole("button", { name: "Revoke" }));
    expect(backend.of("revoke_program")).toEqual([{ name: "editor" }]);
  });

  it("says why it is off, and moves to another port", async () => {
    backend.answers.programs = () => ({ url: null, off: { kind: "port", why: "the API cannot listen on 127.0.0.1:4483" }, tokens: [] });
    render(Settings, { shown });
    await screen.findByText("Off: The API cannot listen on 127.0.0.1:4483");
    await fireEvent.click(screen.getByRole("button", { name: "Use Another Port and Restart" }));
    expect(backend.of("use_another_port")).toHaveLength(1);
    cleanup();
    backend.answers.programs = () => ({ url: null, off: { kind: "other", why: "tokens.json is damaged", hint: null }, tokens: [] });
    render(Settings, { shown });
    await screen.findByText("Off: Tokens.json is damaged");
    expect(screen.queryByRole("button", { name: "Use Another Port and Restart" })).toBeNull();
  });
});
