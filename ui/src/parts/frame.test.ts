import { mockIPC } from "@tauri-apps/api/mocks";
import { cleanup, fireEvent, render, screen, waitFor } from "@testing-library/svelte";
import axe from "axe-core";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { links } from "../lib/links.svelte";
import { menu } from "../lib/menu.svelte";
import Frame from "./Frame.svelte";
import Shortcuts from "./Shortcuts.svelte";

let asked: [string, unknown][] = [];
let written: string[] = [];

beforeEach(() => {
  asked = [];
  written = [];
  localStorage.clear();
  mockIPC((command, given) => {
    asked.push([command, given]);
    return null;
  });
  // jsdom knows no modal dialogs and no clipboard.
  HTMLDialogElement.prototype.showModal = function () {
    this.open = true;
    // A browser begins at the first that can have the focus.
    this.querySelector<HTMLElement>("button, input, [tabindex]")?.focus();
  };
  HTMLDialogElement.prototype.close = function () {
    if (!this.open) return;
    this.open = false;
    setTimeout(() => this.dispatchEvent(new Event("close")));
  };
  const clipboard = { writeText: async (text: string) => void written.push(text), readText: () => Promise.reject(new Error("closed")) };
  Object.defineProperty(navigator, "clipboard", { value: clipboard, configurable: true });
  document.execCommand = vi.fn(() => false);
  // A page beside the frame, as in the window.
  document.body.insertAdjacentHTML(
    "beforeend",
    `<div id="page" data-menu><a href="https://example.com/map">the <b>map</b></a> <a id="mail" href="mailto:a@example.com">mail</a>
      <a id="none" href="#top">top</a> <p id="words">some words</p> <textarea aria-label="text">one two</textarea>
      <button data-offer aria-label="Copy the answer">x</button><button data-offer disabled>Edit</button><button>Other</button></div>
      <p id="bare">nothing</p>`,
  );
  render(Frame);
});

afterEach(() => {
  menu.close();
  links.close();
  cleanup();
  getSelection()?.removeAllRanges();
  Reflect.deleteProperty(navigator, "clipboard");
  document.body.innerHTML = "";
});

const place = (selector: string): HTMLElement => document.querySelector(selector)!;
const rightClick = (selector: string): Promise<boolean> => fireEvent.contextMenu(place(selector), { clientX: 10, clientY: 10 });
const entries = (): string[] => screen.queryAllByRole("menuitem").map((entry) => entry.firstChild?.textContent?.trim() ?? "");
const choose = (name: RegExp): Promise<boolean> => fireEvent.click(screen.getByRole("menuitem", { name }));

async function barriers(): Promise<string[]> {
  const found = await axe.run(place("dialog"), { rules: { "color-contrast": { enabled: false } } });
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
}

describe("a link", () => {
  it("asks, shows all of where it leads, and opens when its owner says so", async () => {
    await fireEvent.click(place("b"));
    expect(screen.getByRole("dialog", { name: "Open example.com in your browser?" })).toBeTruthy();
    expect(screen.getByRole("group", { name: "Address" }).textContent?.trim()).toBe("https://example.com/map");
    expect(await barriers()).toEqual([]);
    expect(asked).toEqual([]);
    // Enter opens, but not the Enter that is still held from the link.
    expect(document.activeElement?.textContent?.trim()).toBe("Open");
    expect(await fireEvent.keyDown(document.activeElement!, { key: "Enter", repeat: true })).toBe(false);
    // Nor does the second half of a double click.
    await fireEvent.click(screen.getByRole("button", { name: "Open" }), { detail: 2 });
    expect(asked).toEqual([]);
    await fireEvent.click(screen.getByRole("button", { name: "Open" }), { detail: 1 });
    expect(asked).toEqual([["open_link", { url: "https://example.com/map" }]]);
    await waitFor(() => expect(document.querySelector("dialog")).toBeNull());
  });

  it("is copied, or left alone", async () => {
    await fireEvent.click(place("b"));
    await fireEvent.click(screen.getByRole("button", { name: "Copy Link" }));
    await screen.findByRole("button", { name: "Copied" });
    expect(written).toEqual(["https://example.com/map"]);
    const behind = vi.fn();
    window.addEventListener("keydown", behind);
    await fireEvent.keyDown(place("dialog"), { key: "Escape" });
    expect(document.querySelector("dialog")).toBeNull();
    // Escape stops no answer behind it.
    expect(behind).not.toHaveBeenCalled();
    window.removeEventListener("keydown", behind);
    await fireEvent.click(place("b"));
    await fireEvent.click(screen.getByRole("button", { name: "Cancel" }));
    expect(document.querySelector("dialog")).toBeNull();
    expect(asked).toEqual([]);
  });

  it("says what is wrong with it", async () => {
    links.ask("https://bank.com:x@аpple.com/login", "bank.com");
    await screen.findByText(/leads elsewhere/);
    expect(screen.getByText(/look-alike letters/)).toBeTruthy();
    expect(screen.getByRole("heading").textContent).toContain("xn--pple-43d.com");
    expect(place("dialog b").textContent).toBe("xn--pple-43d.com");
    expect(screen.getByRole("group", { name: "Address" }).textContent?.trim()).toBe("https://bank.com:x@xn--pple-43d.com/login");
    expect(await barriers()).toEqual([]);
  });

  it("whose user has the name of the site is shown in the right place", async () => {
    links.ask("https://evil.example:evil.example@evil.example/");
    await screen.findByRole("dialog");
    expect(place("dialog b").previousSibling?.textContent).toBe("https://evil.example:evil.example@");
  });

  it("of a mail address is never opened unasked", async () => {
    await fireEvent.click(place("#mail"));
    expect(screen.getByRole("heading").textContent).toBe("Write to a@example.com in your mail program?");
    expect(screen.queryByRole("checkbox")).toBeNull();
  });
});

describe("a context menu", () => {
  it("is never the browser's", async () => {
    for (const where of ["b", "#none", "#words", "textarea", "#bare"]) {
      expect(await rightClick(where), where).toBe(false);
      menu.close();
    }
  });

  it("offers what can be done at its place, and is not there where nothing can", async () => {
    await rightClick("b");
    expect(entries()).toEqual(["Open Link…", "Copy Link", "Copy the answer"]);
    expect(await barriers()).toEqual([]);
    menu.close();
    await rightClick("#mail");
    await waitFor(() => expect(entries()).toEqual(["Open Link…", "Copy Address", "Copy the answer"]));
    menu.close();
    await rightClick("#none");
    await waitFor(() => expect(entries()).toEqual(["Copy the answer"]));
    menu.close();
    await rightClick("#bare");
    await waitFor(() => expect(entries()).toEqual([]));
  });

  it("does what its entries say", async () => {
    await rightClick("b");
    await choose(/Open Link/);
    expect(screen.getByRole("heading").textContent).toBe("Open example.com in your browser?");
    links.close();
    await rightClick("#mail");
    await choose(/Copy Address/);
    await waitFor(() => expect(written).toEqual(["a@example.com"]));
    const pressed = vi.fn();
    place("[data-offer]").addEventListener("click", pressed);
    await rightClick("#words");
    await choose(/Copy the answer/);
    expect(pressed).toHaveBeenCalledOnce();
    expect(entries()).toEqual([]);
  });

  it("asks again for a site that was allowed", async () => {
    links.ask("https://example.com/");
    await links.open(true);
    await rightClick("b");
    await choose(/Ask Again/);
    expect(links.trusts("https://example.com")).toBe(false);
  });

  it("copies what is selected, which stays selected", async () => {
    getSelection()!.selectAllChildren(place("#words"));
    await rightClick("#words");
    expect(entries()).toEqual(["Copy", "Copy the answer"]);
    getSelection()!.removeAllRanges();
    await choose(/^Copy( Ctrl\+C)?$/);
    await waitFor(() => expect(written).toEqual(["some words"]));
    expect(getSelection()!.toString()).toBe("some words");
    // What is selected elsewhere is not what was clicked.
    await rightClick("#bare");
    expect(entries()).toEqual([]);
  });

  it("cuts, copies and pastes in a field", async () => {
    const field = place("textarea") as HTMLTextAreaElement;
    const off = () => screen.getAllByRole<HTMLButtonElement>("menuitem").filter((entry) => entry.disabled).map((entry) => entry.firstChild?.textContent?.trim());
    field.focus();
    field.setSelectionRange(0, 0);
    await rightClick("textarea");
    expect(entries()).toEqual(["Cut", "Copy", "Paste", "Select All"]);
    expect(off()).toEqual(["Cut", "Copy"]);
    await choose(/Select All/);
    expect(field.selectionEnd).toBe(7);
    await rightClick("textarea");
    expect(off()).toEqual([]);
    await choose(/Cut/);
    expect(document.execCommand).toHaveBeenCalledWith("cut");
    await waitFor(() => expect(document.execCommand).toHaveBeenCalledWith("delete"));
    expect(written).toEqual(["one two"]);
    field.readOnly = true;
    await rightClick("textarea");
    expect(off()).toEqual(["Cut", "Paste"]);
  });

  it("says so when the clipboard is closed to it", async () => {
    await rightClick("textarea");
    await choose(/Paste/);
    await screen.findByText(/Use Ctrl\+X, C or V/);
    await fireEvent.click(screen.getByRole("button", { name: "Dismiss" }));
    expect(screen.queryByText(/Use Ctrl/)).toBeNull();
  });

  it("is all there by the keyboard", async () => {
    place("a").focus();
    const press = (key: string, more = {}) => fireEvent.keyDown(document.activeElement!, { key, ...more });
    expect(await press("F10", { shiftKey: true })).toBe(false);
    const here = () => document.activeElement?.firstChild?.textContent?.trim();
    await waitFor(() => expect(here()).toBe("Open Link…"));
    await press("ArrowDown");
    expect(here()).toBe("Copy Link");
    await press("End");
    await press("ArrowDown");
    expect(here()).toBe("Open Link…");
    await press("ArrowUp");
    expect(here()).toBe("Copy the answer");
    await press("Home");
    expect(here()).toBe("Open Link…");
    const behind = vi.fn();
    window.addEventListener("keydown", behind);
    await press("Escape");
    window.removeEventListener("keydown", behind);
    expect(behind).not.toHaveBeenCalled();
    expect(entries()).toEqual([]);
    place("a").focus();
    await fireEvent.keyDown(place("a"), { key: "ContextMenu" });
    expect(entries().length).toBe(3);
    await fireEvent.mouseDown(place("dialog"));
    expect(entries()).toEqual([]);
    place("a").focus();
    await fireEvent.keyDown(place("a"), { key: "ContextMenu" });
    await fireEvent.blur(window);
    expect(entries()).toEqual([]);
  });
});

describe("the list of shortcuts", () => {
  it("has them all, and can be used by everybody", async () => {
    const close = vi.fn();
    render(Shortcuts, { close });
    expect(screen.getByText("Ctrl+N")).toBeTruthy();
    expect(screen.getByText("Search chats").parentElement?.textContent).toContain("Ctrl+F");
    expect(screen.getByText("Settings").parentElement?.textContent?.replaceAll(/\s+/g, " ")).toContain("Ctrl+4 or Ctrl+,");
    expect(await barriers()).toEqual([]);
    await fireEvent.click(screen.getByRole("button", { name: "Close" }));
    expect(close).toHaveBeenCalled();
  });
});
