import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/svelte";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import App from "../App.svelte";
import type { Cause, Remedy } from "../lib/bindings";
import { Backend, barriers } from "../testing";
import StartFailure from "./StartFailure.svelte";

let backend: Backend;

beforeEach(() => {
  backend = new Backend();
});

afterEach(cleanup);

function open(cause: Cause, remedies: Remedy[]): void {
  render(StartFailure, { failure: { cause, remedies, language: "en" } });
}

const buttons = () => screen.getAllByRole("button").map((button) => button.textContent?.trim());

describe("a start that failed", () => {
  it("says what is wrong in place of the app, with a button for each remedy", async () => {
    backend.answers.start_failure = () => ({
      cause: { kind: "damaged", file: "config.toml", why: "unknown field `shaer`" },
      remedies: ["move_aside", "open_folder", "try_again", "quit"],
      language: "en",
    });
    render(App);
    await screen.findByRole("heading", { name: "HiveMind can’t read your settings" });
    expect(screen.getByText("unknown field `shaer`")).toBeTruthy();
    expect(buttons()).toEqual(["Move It Aside and Start", "Open Folder", "Try Again", "Quit"]);
    expect(await barriers()).toEqual([]);
    await fireEvent.click(screen.getByRole("button", { name: "Open Folder" }));
    expect(backend.of("repair")).toEqual([{ remedy: "open_folder" }]);
    // Without a node, nothing is watched.
    expect(backend.of("watch")).toEqual([]);
  });

  it.each<[Cause, string, string]>([
    [{ kind: "in_use", by: "process 7, hivemind", process: 7 }, "HiveMind is already running", "Stop it to start the app, or leave it running and quit."],
    [{ kind: "in_use", by: "process 7, hivemind-app", process: null }, "HiveMind is already running", "Quit it, then try again."],
    [{ kind: "not_writable", path: "/data", why: "Read-only file system" }, "HiveMind can’t write its data", "Make this writable for you, then try again: /data"],
    [{ kind: "full", path: "/data" }, "The disk is full", "Free some space on the disk of /data, then try again."],
    [{ kind: "damaged", file: "conversations.sqlite", why: "" }, "HiveMind can’t read your chats", "The list of chats starts empty. Nothing is deleted."],
    [{ kind: "newer", file: "conversations.sqlite" }, "A newer HiveMind wrote your chats", "Update HiveMind, or move conversations.sqlite aside"],
    [{ kind: "port", why: "Address already in use" }, "The port for other machines is taken", "HiveMind can use another port"],
    [{ kind: "other", why: "the Keychain refused", hint: "Unlock it." }, "HiveMind couldn’t start", "The Keychain refused. Unlock it."],
  ])("of kind %o has a title and says what to do", (cause, title, text) => {
    open(cause, ["quit"]);
    expect(screen.getByRole("heading").textContent).toBe(title);
    expect(screen.getByRole("alert").textContent).toContain(text);
  });

  it("says that it waits for the other one to stop, and what went wrong", async () => {
    let refuse: (problem: unknown) => void = () => {};
    backend.answers.repair = () => new Promise((_, reject) => (refuse = reject));
    open({ kind: "in_use", by: "process 7, hivemind", process: 7 }, ["stop_other", "try_again", "quit"]);
    await fireEvent.click(screen.getByRole("button", { name: "Stop It and Start" }));
    const stopping = await screen.findByRole<HTMLButtonElement>("button", { name: "Stopping…" });
    expect(stopping.disabled).toBe(true);
    refuse({ code: "not_repaired", message: "the other HiveMind has not stopped yet", hint: null });
    await screen.findByText("The other HiveMind has not stopped yet");
    await waitFor(() => expect(buttons()).toEqual(["Stop It and Start", "Try Again", "Quit"]));
  });
});
