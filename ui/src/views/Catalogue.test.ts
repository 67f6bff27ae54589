import { cleanup, fireEvent, render, screen, waitFor, within } from "@testing-library/svelte";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { Fit } from "../lib/bindings";
import { library } from "../lib/library.svelte";
import { links } from "../lib/links.svelte";
import { type CatalogueModel, node } from "../lib/node";
import { speak } from "../lib/words";
import { Backend, barriers, catalogueModel as model, onDisk, shown, variant } from "../testing";
import Catalogue from "./Catalogue.svelte";
import Models from "./Models.svelte";

const COMFORTABLE: Fit = { verdict: "comfortable" };
const SNUG: Fit = { verdict: "snug", machine: "Attic", left_bytes: 1.2e9 };
const NEEDS_MORE: Fit = { verdict: "needs_more", bytes: 4.1e9, advice: "share 5 GB more on Attic" };

const QWEN = model("Qwen3 8B", [variant("mlx-community/Qwen3-8B-4bit", 4.6e9, COMFORTABLE)], { thinking: true });

let backend: Backend;
const answer = (models: CatalogueModel[], problem: string | null = null) => (backend.answers["GET /catalogue"] = () => ({ models, problem }));
const names = () => screen.queryAllByRole("article").map((card) => within(card).getByRole("heading").textContent);
const card = async (name: string) => within(await screen.findByRole("article", { name }));
const type = (value: string) => fireEvent.input(screen.getByRole("searchbox"), { target: { value } });
const searches = () => backend.of("GET /catalogue").map(({ search }) => search);

beforeEach(() => {
  backend = new Backend();
  backend.answers["GET /models"] = () => [];
  answer([QWEN]);
  Object.assign(library, { models: [], unusable: [], read: false, problem: "", busy: {} });
});

afterEach(async () => {
  cleanup();
  vi.useRealTimers();
  vi.restoreAllMocks();
  await speak("en");
});

describe("a search", () => {
  it("is sent once typing stops, and cleared by Escape", async () => {
    render(Catalogue, { shown });
    await card("Qwen3 8B");
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    for (const words of ["c", "co", "coder", "coder 30b"]) {
      await type(words);
      await vi.advanceTimersByTimeAsync(249);
    }
    expect(searches()).toEqual([undefined]);
    await vi.advanceTimersByTimeAsync(1);
    expect(searches()).toEqual([undefined, "coder 30b"]);
    vi.useRealTimers();
    await fireEvent.keyDown(screen.getByRole("searchbox"), { key: "Escape" });
    expect(screen.getByRole<HTMLInputElement>("searchbox").value).toBe("");
    await waitFor(() => expect(searches()).toEqual([undefined, "coder 30b", undefined]));
  });

  it("shows what it finds, though an earlier one is answered later", async () => {
    render(Catalogue, { shown });
    await card("Qwen3 8B");
    const late: ((found: CatalogueModel[]) => void)[] = [];
    vi.spyOn(node, "catalogue").mockImplementation(() => new Promise((done) => late.push((models) => done({ models, problem: null }))));
    await type("gemma");
    await waitFor(() => expect(late).toHaveLength(1));
    await type("phi");
    await waitFor(() => expect(late).toHaveLength(2));
    late[1]!([model("Phi-4", [variant("o/phi", 8e9, SNUG)])]);
    await card("Phi-4");
    late[0]!([model("Gemma", [variant("o/gemma", 8e9, SNUG)])]);
    await new Promise((after) => setTimeout(after));
    expect(names()).toEqual(["Phi-4"]);
  });

  it("without a match says so, and what is wrong with the owner's own entries", async () => {
    answer([], "catalogue.toml, line 3: unknown field `layer`");
    render(Catalogue, { shown });
    expect((await screen.findByRole("status")).textContent).toBe("No model matches.");
    expect(screen.getByText(/line 3/)).toBeTruthy();
    expect(await barriers()).toEqual([]);
  });

  it("that fails says why, and keeps what was found", async () => {
    render(Catalogue, { shown });
    await card("Qwen3 8B");
    backend.answers["GET /catalogue"] = () => {
      throw { code: "gone", message: "the node is stopping", hint: null };
    };
    await type("phi");
    expect((await screen.findByRole("alert")).textContent).toBe("The node is stopping");
    expect(names()).toEqual(["Qwen3 8B"]);
  });

  it("shows twelve models, and then the next", async () => {
    answer(Array.from({ length: 30 }, (_, index) => model(`Model ${index + 1}`, [variant(`o/m${index}`, 1e9, COMFORTABLE)])));
    render(Catalogue, { shown });
    await waitFor(() => expect(names()).toHaveLength(12));
    await fireEvent.click(screen.getByRole("button", { name: "Show more" }));
    await waitFor(() => expect(document.activeElement).toBe(screen.getByRole("article", { name: "Model 13" })));
    expect(names()).toHaveLength(24);
    await fireEvent.click(screen.getByRole("button", { name: "Show more" }));
    expect(names()).toHaveLength(30);
    expect(screen.queryByRole("button", { name: "Show more" })).toBeNull();
    await type("m");
    await waitFor(() => expect(names()).toHaveLength(12));
  });

  it("is repeated when the machines or the models on the disk have changed", async () => {
    const { rerender } = render(Catalogue, { shown });
    await card("Qwen3 8B");
    await rerender({ shown: { ...shown, answered_tokens: 7 } });
    expect(searches()).toHaveLength(1);
    await rerender({ shown: { ...shown, pool_bytes: 40e9 } });
    await waitFor(() => expect(searches()).toHaveLength(2));
    library.models = [onDisk("mlx-community/Qwen3-8B-4bit")];
    await waitFor(() => expect(searches()).toHaveLength(3));
  });
});

describe("filters", () => {
  it("leave what has all that is wanted", async () => {
    answer([
      QWEN,
      model("Coder", [variant("o/coder", 2e9, NEEDS_MORE)], { good_at: ["code"], tools: true }),
      model("Both", [variant("o/both", 2e9, SNUG)], { good_at: ["code"], thinking: true }),
      model("Unknown", [variant("o/unknown", 2e9, null)]),
    ]);
    render(Catalogue, { shown });
    await card("Coder");
    const press = (name: string) => fireEvent.click(screen.getByRole("button", { name }));
    await press("Fits now");
    expect(names()).toEqual(["Qwen3 8B", "Both"]);
    await press("Code");
    expect(screen.getByRole("button", { name: "Code" }).getAttribute("aria-pressed")).toBe("true");
    expect(names()).toEqual(["Both"]);
    await press("Fits now");
    expect(names()).toEqual(["Coder", "Both"]);
    await press("Tools");
    expect(names()).toEqual(["Coder"]);
    await press("Thinking");
    expect(screen.getByRole("status").textContent).toBe("No model matches.");
    await press("Code");
    await press("Tools");
    expect(names()).toEqual(["Qwen3 8B", "Both"]);
  });
});

describe("a model", () => {
  it("says what it is, and how it fits", async () => {
    answer([
      model("Mixture", [variant("o/mix", 17e9, NEEDS_MORE, { approximate: true })], {
        parameters: 30e9,
        active_parameters: 3e9,
        good_at: ["code", "long documents"],
      }),
      model("Snug", [variant("o/snug", 5e9, SNUG)], { parameters: 30.53e9, active_parameters: 3.3e9 }),
      model("Small", [variant("o/small", 4e8, null, { fits: [{ context: 4096, fit: COMFORTABLE, machines: [], room_tokens: 1, decode_tokens_per_s: 42.4 }] })], {
        parameters: 596e6,
      }),
    ]);
    render(Catalogue, { shown });
    const mixture = await card("Mixture");
    expect(mixture.getByText("30B, 3B active · Up to 40,960 tokens · Licence: Apache-2.0")).toBeTruthy();
    expect(mixture.getByText("Good for code, long documents")).toBeTruthy();
    expect(mixture.getByText("4-bit · about 17.0 GB")).toBeTruthy();
    expect(mixture.getByText("Needs 4.1 GB more")).toBeTruthy();
    expect(mixture.getByText("Share 5 GB more on Attic.")).toBeTruthy();
    expect(mixture.getByRole("button", { name: "Get anyway Mixture, 4-bit" }).className).toContain("plain");
    const snug = await card("Snug");
    expect(snug.getByText(/^30.5B, 3.3B active/)).toBeTruthy();
    expect(snug.getByText("4-bit · 5.0 GB")).toBeTruthy();
    expect(snug.getByText("Tight fit: 1.2 GB left on Attic").className).toContain("snug");
    expect(snug.getByRole("button").textContent?.trim()).toBe("Get");
    const small = await card("Small");
    expect(small.getByText(/^596M ·/)).toBeTruthy();
    expect(small.getByText("Fits comfortably").className).toContain("comfortable");
    expect(small.getByText("About 42 tok/s")).toBeTruthy();
    expect(await barriers()).toEqual([]);
  });

  it("shows the largest size that fits comfortably, and the others when asked", async () => {
    const sizes = [
      variant("o/m-3bit", 3e9, COMFORTABLE, { quantization: "3-bit" }),
      variant("o/m-8bit", 8e9, SNUG, { quantization: "8-bit" }),
      variant("o/m-4bit", 4e9, COMFORTABLE),
    ];
    const none = [variant("o/n-4bit", 4e9, NEEDS_MORE), variant("o/n-8bit", 8e9, NEEDS_MORE, { quantization: "8-bit" })];
    const second = [variant("o/s-4bit", 4e9, NEEDS_MORE), variant("o/s-3bit", 3e9, SNUG, { quantization: "3-bit" })];
    answer([model("M", sizes), model("N", none), model("S", second)]);
    render(Catalogue, { shown });
    const m = await card("M");
    const shownSizes = (in_: typeof m) => in_.getAllByRole("listitem").map((row) => row.querySelector("p")!.textContent!.split(" ")[0]);
    expect(shownSizes(m)).toEqual(["4-bit"]);
    expect(shownSizes(await card("N"))).toEqual(["4-bit"]);
    expect(shownSizes(await card("S"))).toEqual(["3-bit"]);
    expect((await card("N")).getByRole("button", { name: "1 more size" })).toBeTruthy();
    const more = m.getByRole("button", { name: "2 more sizes" });
    await fireEvent.click(more);
    expect(shownSizes(m)).toEqual(["4-bit", "3-bit", "8-bit"]);
    expect([more.textContent, more.getAttribute("aria-expanded")]).toEqual(["Fewer sizes", "true"]);
    expect(await barriers()).toEqual([]);
    await fireEvent.click(more);
    expect(shownSizes(m)).toEqual(["4-bit"]);
  });

  it("is got by its variant's name, with its progress", async () => {
    const [small, large] = [variant("o/m-4bit", 4e9, COMFORTABLE), variant("o/m-8bit", 8e9, SNUG, { quantization: "8-bit" })];
    answer([model("M", [small, large])]);
    const { rerender } = render(Catalogue, { shown });
    const m = await card("M");
    await fireEvent.click(m.getByRole("button", { name: "1 more size" }));
    const load = node.loadModel;
    let end = (): void => {};
    const ended = new Promise<void>((done) => (end = done));
    vi.spyOn(node, "loadModel").mockImplementation((name) => Promise.all([load(name), ended]));
    await fireEvent.click(m.getByRole("button", { name: "Get M, 8-bit" }));
    expect(m.getByRole<HTMLButtonElement>("button", { name: "Loading… M, 8-bit" }).disabled).toBe(true);
    expect(screen.queryByRole("progressbar")).toBeNull();
    await rerender({ shown: { ...shown, loads: [{ name: "o/m-8bit", layers: 0, of: 30, fetched: 2e9, fetching: 8e9 }] } });
    expect(screen.getAllByRole("progressbar")).toHaveLength(1);
    expect([screen.getByRole<HTMLProgressElement>("progressbar").value, screen.getByRole<HTMLProgressElement>("progressbar").max]).toEqual([2e9, 8e9]);
    expect(m.getByText("Fetching 2.0 GB of 8.0 GB")).toBeTruthy();
    // What is being fetched is never hidden.
    await fireEvent.click(m.getByRole("button", { name: "Fewer sizes" }));
    expect(m.getByRole("progressbar")).toBeTruthy();
    expect(await barriers()).toEqual([]);
    await rerender({ shown: { ...shown, loads: [{ name: "o/m-8bit", layers: 12, of: 30, fetched: 0, fetching: 0 }] } });
    expect(m.getByText("12 of 30 layers")).toBeTruthy();
    answer([model("M", [small, { ...large, loaded: true }])]);
    backend.answers["GET /models"] = () => [onDisk("o/m-8bit", { loaded: true })];
    end();
    await rerender({ shown });
    await waitFor(() => expect(searches()).toHaveLength(2));
    expect(backend.of("POST /models/load")).toEqual([{ model: "o/m-8bit" }]);
    await fireEvent.click(m.getByRole("button", { name: "1 more size" }));
    expect(m.getByRole<HTMLButtonElement>("button", { name: "Loaded M, 8-bit" }).disabled).toBe(true);
  });

  it("on the disk is loaded, and says beside it what went wrong", async () => {
    answer([model("M", [variant("o/m", 4e9, NEEDS_MORE, { on_disk: true })])]);
    backend.answers["POST /models/load"] = () => {
      throw { code: "no_room", message: "there is no room for it", hint: null };
    };
    render(Catalogue, { shown });
    const m = await card("M");
    await fireEvent.click(m.getByRole("button", { name: "Load M, 4-bit" }));
    expect(backend.of("POST /models/load")).toEqual([{ model: "o/m" }]);
    expect(await m.findByText("There is no room for it")).toBeTruthy();
  });
});

describe("a model that is not for everybody", () => {
  it("asks for a token in place, and is got with it", async () => {
    answer([model("M", [variant("o/m", 4e9, COMFORTABLE)])]);
    backend.answers["GET /hub-token"] = () => ({ stored: false, in_environment: false });
    const message = "o/m is only for those who have accepted its licence: accept it at https://huggingface.co/o/m, then give HiveMind a token";
    backend.answers["POST /models/load"] = () => {
      throw { code: "model_denied", message, hint: null };
    };
    const ask = vi.spyOn(links, "ask").mockReturnValue();
    render(Catalogue, { shown });
    const m = await card("M");
    await fireEvent.click(m.getByRole("button", { name: "Get M, 4-bit" }));
    await fireEvent.click(await m.findByRole("button", { name: "Open its page" }));
    expect(ask).toHaveBeenCalledWith("https://huggingface.co/o/m");
    await fireEvent.input(m.getByLabelText("Hugging Face token"), { target: { value: "hf_1" } });
    expect(await barriers()).toEqual([]);
    delete backend.answers["POST /models/load"];
    await fireEvent.click(m.getByRole("button", { name: "Save token" }));
    await waitFor(() => expect(backend.of("POST /models/load")).toHaveLength(2));
    await waitFor(() => expect(m.queryByLabelText("Hugging Face token")).toBeNull());
  });
});

describe("a repository that is not listed", () => {
  it.each([
    ["someone/thing-4bit", "someone/thing-4bit", "someone/thing-4bit"],
    ["someone/thing-GGUF:Q4_K_M", "someone/thing-GGUF", "someone/thing-GGUF:Q4_K_M"],
    ["https://huggingface.co/someone/thing/tree/dev", "someone/thing", "someone/thing@dev"],
  ])("is offered: %s", async (text, asked, got) => {
    answer([]);
    render(Catalogue, { shown });
    await type(text);
    expect(await screen.findByText(`Get ${got} from Hugging Face`)).toBeTruthy();
    expect(searches().at(-1)).toBe(asked);
    expect(screen.queryByRole("status")).toBeNull();
    expect(await barriers()).toEqual([]);
    await fireEvent.click(screen.getByRole("button", { name: `Get ${got}` }));
    expect(backend.of("POST /models/load")).toEqual([{ model: got }]);
  });

  it("is not offered twice", async () => {
    answer([model("Thing", [variant("someone/thing@abc:Q8_0", 4e9, COMFORTABLE)])]);
    render(Catalogue, { shown });
    for (const [text, offered] of [
      ["Someone/Thing", 0],
      ["someone/thing@abc:Q8_0", 0],
      ["hf.co/someone/thing:Q4_0", 1],
      ["thing", 0],
    ] as const) {
      await type(text);
      const sent = text.includes("/") ? text.replace("hf.co/", "").split(/[@:]/)[0] : text;
      await waitFor(() => expect(searches().at(-1)).toBe(sent));
      await waitFor(() => expect(screen.queryAllByText(/from Hugging Face/)).toHaveLength(offered));
    }
  });
});

describe("the page", () => {
  it("has it below the models on the disk, and at the top without any", async () => {
    const inOrder = () => screen.getAllByRole("heading").map((heading) => heading.textContent);
    backend.answers["GET /models"] = () => [onDisk("Llama"), onDisk("Broken", { unusable: "broken" })];
    render(Models, { shown });
    await card("Qwen3 8B");
    await screen.findByRole("article", { name: "Llama" });
    expect(inOrder()).toEqual(["Models", "Llama", "Can’t be used", "Broken", "Find a model", "Qwen3 8B"]);
    expect(await barriers()).toEqual([]);
    await type("qwen");
    backend.answers["GET /models"] = () => [onDisk("Broken", { unusable: "broken" })];
    await library.refresh();
    await waitFor(() => expect(inOrder()).toEqual(["Models", "No models yet.", "Find a model", "Qwen3 8B", "Can’t be used", "Broken"]));
    // What was typed is still there.
    expect(screen.getByRole<HTMLInputElement>("searchbox").value).toBe("qwen");
    expect(await barriers()).toEqual([]);
  });

  it("is in German", async () => {
    await speak("de");
    answer([
      model("Mixtur", [variant("o/mix", 17e9, NEEDS_MORE, { approximate: true }), variant("o/mix2", 18e9, NEEDS_MORE)], {
        parameters: 30.5e9,
        active_parameters: 3.3e9,
        good_at: ["code", "small machines"],
      }),
      model("Knapp", [variant("o/snug", 5e9, SNUG)]),
    ]);
    render(Catalogue, { shown });
    const mixture = await card("Mixtur");
    const said = (text: string) => expect(mixture.getByText(text)).toBeTruthy();
    said("30,5B, davon 3,3B aktiv · Bis zu 40.960 Token · Lizenz: Apache-2.0");
    said("Gut für Code, kleine Rechner");
    said("4-bit · etwa 17,0 GB");
    said("Braucht 4,1 GB mehr");
    said("1 weitere Größe");
    expect(mixture.getByRole("button", { name: "Trotzdem holen: Mixtur, 4-bit" })).toBeTruthy();
    expect((await card("Knapp")).getByText("Passt knapp: noch 1,2 GB frei auf Attic")).toBeTruthy();
    expect(screen.getByPlaceholderText("Modelle suchen")).toBeTruthy();
    expect(["Passt jetzt", "Code", "Werkzeuge", "Denken"].every((name) => screen.getByRole("button", { name }))).toBe(true);
    expect(await barriers()).toEqual([]);
    answer([]);
    await type("jemand/etwas");
    expect(await screen.findByText("jemand/etwas von Hugging Face holen")).toBeTruthy();
    await type("etwas");
    expect(await screen.findByText("Kein passendes Modell.")).toBeTruthy();
  });
});

describe("a model in memory", () => {
  it("begins a chat", async () => {
    const chat = vi.fn();
    answer([model("Qwen3 8B", [variant("owner/qwen", 4.6e9, COMFORTABLE, { on_disk: true, loaded: true })])]);
    render(Catalogue, { shown, chat });
    await fireEvent.click((await card("Qwen3 8B")).getByRole("button", { name: /^Chat / }));
    expect(chat).toHaveBeenCalledWith("owner/qwen");
  });
});
