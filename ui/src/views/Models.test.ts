import { cleanup, fireEvent, render, screen, waitFor, within } from "@testing-library/svelte";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { adding } from "../lib/adding.svelte";
import { library } from "../lib/library.svelte";
import { node } from "../lib/node";
import { Backend, barriers, onDisk, shown } from "../testing";
import Models from "./Models.svelte";

let backend: Backend;

beforeEach(() => {
  Element.prototype.scrollIntoView = () => {};
  backend = new Backend();
  Object.assign(library, { models: [], unusable: [], read: false, problem: "" });
});

afterEach(() => {
  cleanup();
  vi.restoreAllMocks();
});

describe("models", () => {
  it("are loaded and unloaded, and say what went wrong", async () => {
    backend.answers["GET /models"] = () => [onDisk("Llama", { loaded: true, removable: false }), onDisk("Qwen")];
    backend.answers["POST /models/unload"] = () => {
      throw { code: "not_unloaded", message: "Llama is answering", hint: null };
    };
    render(Models, { shown });
    await fireEvent.click(await screen.findByRole("button", { name: "Load" }));
    expect(backend.of("POST /models/load")).toEqual([{ model: "Qwen" }]);
    await fireEvent.click(screen.getByRole("button", { name: "Unload" }));
    await waitFor(() => expect(screen.getByRole("alert").textContent).toBe("Llama is answering"));
  });

  it("are deleted only when their owner says so twice, and the built-in one never", async () => {
    backend.answers["GET /models"] = () => [onDisk("Llama", { removable: false }), onDisk("Qwen")];
    render(Models, { shown });
    await fireEvent.click(await screen.findByRole("button", { name: "Delete…" }));
    expect(backend.of("DELETE /models")).toEqual([]);
    await fireEvent.click(screen.getByRole("button", { name: "Cancel" }));
    await fireEvent.click(screen.getByRole("button", { name: "Delete…" }));
    await fireEvent.click(screen.getByRole("button", { name: "Delete" }));
    expect(backend.of("DELETE /models")).toEqual([{ model: "Qwen" }]);
  });

  it("outside the cache are taken off the list, and their files stay", async () => {
    backend.answers["GET /models"] = () => [onDisk("/home/ann/own.gguf", { in_place: true })];
    render(Models, { shown });
    await fireEvent.click(await screen.findByRole("button", { name: "Remove…" }));
    expect(screen.getByText("Remove it from the list? Its files stay where they are.")).toBeTruthy();
    expect(screen.queryByRole("button", { name: /Delete/ })).toBeNull();
    await fireEvent.click(screen.getByRole("button", { name: "Remove" }));
    expect(backend.of("DELETE /models")).toEqual([{ model: "/home/ann/own.gguf" }]);
  });

  it("that are in memory say where, also one outside the cache", async () => {
    const model = { name: "Größer als 7 B", bytes: 7e9, stages: [{ machine: "Studio", layers: [0, 30] as [number, number] }] };
    backend.answers["GET /models"] = () => [onDisk("/home/ann/Größer als\n7 B.gguf", { loaded: true }), onDisk("/other/Größer als 7 B.gguf")];
    render(Models, { shown: { ...shown, model } });
    const card = within(await screen.findByRole("article", { name: (name) => name.includes("/home/ann") }));
    expect(card.getByText(/Loaded on/)).toBeTruthy();
    expect(screen.getAllByText(/Loaded on/)).toHaveLength(1);
  });

  it("are pinned and unpinned, and show their other names", async () => {
    const model = onDisk("Llama", { aliases: ["fast", "small"], adapted: ["tuned"] });
    backend.answers["GET /models"] = () => [model];
    backend.answers["POST /models/pin"] = () => Object.assign(model, { pinned: true });
    render(Models, { shown });
    const pin = await screen.findByRole("button", { name: "Pin" });
    expect(pin.getAttribute("aria-pressed")).toBe("false");
    expect(screen.getByText("Also called fast, small")).toBeTruthy();
    expect(screen.getByText("With an adapter: tuned")).toBeTruthy();
    await fireEvent.click(pin);
    const pinned = await screen.findByRole("button", { name: "Pinned" });
    expect(pinned.getAttribute("aria-pressed")).toBe("true");
    await fireEvent.click(pinned);
    expect(backend.of("POST /models/pin")).toEqual([{ model: "Llama" }]);
    expect(backend.of("POST /models/unpin")).toEqual([{ model: "Llama" }]);
  });

  it("that are being downloaded can be paused without an error, and resumed", async () => {
    const part = onDisk("o/m", { bytes: 2e9, whole_bytes: 8e9 });
    backend.answers["GET /models"] = () => [onDisk("Llama"), part];
    let fail = (): void => {};
    const paused = new Promise((_, no) => (fail = () => no({ code: "download_paused", message: "it was paused", hint: null })));
    const load = vi.spyOn(node, "loadModel").mockReturnValue(paused);
    const { rerender } = render(Models, { shown });
    const m = within(await screen.findByRole("article", { name: "o/m" }));
    await fireEvent.click(await m.findByRole("button", { name: "Resume" }));
    expect(load).toHaveBeenCalledWith("o/m");
    const view = { name: "o/m", layers: 0, of: 30, fetched: 2e9, fetching: 8e9 };
    // Another model's progress stands beside that model.
    await rerender({ shown: { ...shown, loads: [{ ...view, name: "Llama" }, view] } });
    expect(screen.getAllByRole("progressbar")).toHaveLength(2);
    await fireEvent.click(m.getByRole("button", { name: "Pause o/m" }));
    expect(backend.of("POST /models/pause")).toEqual([{ model: "o/m" }]);
    fail();
    await rerender({ shown });
    expect(await m.findByRole("button", { name: "Resume" })).toBeTruthy();
    expect(screen.queryByRole("alert")).toBeNull();
    // Once its layers are loaded, there is nothing to pause.
    await rerender({ shown: { ...shown, loads: [{ ...view, fetching: 0 }] } });
    expect(m.queryByRole("button", { name: "Pause o/m" })).toBeNull();
  });

  it("of which other machines have the rest are loaded, not resumed", async () => {
    backend.answers["GET /models"] = () => [onDisk("o/m", { bytes: 2e9, whole_bytes: 8e9, also_on: ["Studio"] })];
    render(Models, { shown });
    expect(await screen.findByRole("button", { name: "Load" })).toBeTruthy();
  });

  it("say which size is the disk's and which the memory's", async () => {
    render(Models, { shown });
    const llama = within(await screen.findByRole("article", { name: "Llama" }));
    expect(llama.getByText("4.0 GB on disk")).toBeTruthy();
    await llama.findByText("Needs 6.0 GB of memory");
    cleanup();
    render(Models, { shown: { ...shown, model: { name: "Llama", bytes: 7e9, stages: [{ machine: "Studio", layers: [0, 18] }] } } });
    const loaded = within(await screen.findByRole("article", { name: "Llama" }));
    expect(loaded.getByText("Uses 7.0 GB of memory")).toBeTruthy();
    expect(loaded.queryByText(/Needs/)).toBeNull();
  });

  it("that cannot be used say why and are offered nowhere", async () => {
    backend.answers["GET /models"] = () => [
      onDisk("Llama"),
      onDisk("/home/me/models/broken", { bytes: 0, unusable: "config.json: EOF while parsing an object" }),
    ];
    render(Models, { shown });
    const broken = await screen.findByRole("article", { name: "/home/me/models/broken" });
    const said = within(broken);
    expect(said.getByRole("heading").textContent).toBe("broken");
    expect(said.getByText(/^HiveMind can’t load this model/)).toBeTruthy();
    // A reader's own words are for whoever looks for the cause.
    expect(said.getByText("Config.json: EOF while parsing an object.").closest("details")?.open).toBe(false);
    expect(said.queryByRole("button", { name: "Load" })).toBeNull();
    // A size of nothing is no size.
    expect(broken.textContent).not.toContain("MB");
    expect(broken.querySelector(".bad")).toBeNull();
    expect(library.models.map(({ name }) => name)).toEqual(["Llama"]);
    expect(backend.of("GET /plan")).toEqual([{ model: "Llama" }]);
    expect(await barriers()).toEqual([]);
  });

  it("are added with a button, and say what was added and what was not", async () => {
    render(Models, { shown });
    await screen.findByRole("article", { name: "Llama" });
    backend.answers["GET /models"] = () => [onDisk("Llama"), onDisk("/home/me/größer als 7 B.gguf", { removable: false })];
    backend.answers.choose_files = () => [
      { number: 1, name: "größer als 7 B.gguf", bytes: 1, found: { kind: "model", path: "/home/me/größer als 7 B.gguf" } },
      { number: 2, name: "weights.pt", bytes: 1, found: { kind: "pickled" } },
    ];
    const button = screen.getByRole("button", { name: "Add a file or folder…" });
    button.focus();
    await fireEvent.click(button);
    const added = within(await screen.findByRole("article", { name: "/home/me/größer als 7 B.gguf" }));
    expect(added.getByRole("heading").textContent).toBe("größer als 7 B.gguf");
    await waitFor(() => expect(screen.getByText("Added größer als 7 B.gguf.").getAttribute("role")).toBe("status"));
    expect(screen.getByRole("alert").textContent).toContain("weights.pt wasn’t opened");
    expect(backend.of("POST /models/load")).toEqual([{ model: "/home/me/größer als 7 B.gguf" }]);
    // Whoever uses the keyboard stays where they are.
    expect(document.activeElement).toBe(button);
    expect(await barriers()).toEqual([]);
    cleanup();
    expect([adding.said, adding.refused]).toEqual(["", []]);
  });

  it("of which there are none say how to get one", async () => {
    backend.answers["GET /models"] = () => [];
    render(Models, { shown });
    await screen.findByRole("heading", { name: "No models yet." });
    await fireEvent.click(screen.getByRole("button", { name: "Open Models Folder" }));
    expect(backend.of("show_models")).toHaveLength(1);
    backend.answers["GET /models"] = () => [onDisk("Qwen")];
    await fireEvent.click(screen.getByRole("button", { name: "Look Again" }));
    await screen.findByRole("article", { name: "Qwen" });
    expect(screen.queryByText("No models yet.")).toBeNull();
  });
});
