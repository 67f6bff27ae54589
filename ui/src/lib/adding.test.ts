import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { Backend, onDisk, planned } from "../testing";
import { adding, isForModels } from "./adding.svelte";
import type { Finding, HandedFile } from "./bindings";
import type { Dropped } from "./drops.svelte";
import { library } from "./library.svelte";

let backend: Backend;
/** The models that a node lists: those that were opened. */
let listed: string[];

const given = (name: string, found: Finding): HandedFile => ({ number: 1, name, bytes: 0, found });
const model = (path: string): HandedFile => given(path.slice(path.lastIndexOf("/") + 1), { kind: "model", path });
const dropped = (name: string, found?: Finding): Dropped => ({ file: new File([], name), found });

beforeEach(() => {
  backend = new Backend();
  listed = [];
  Object.assign(library, { models: [], unusable: [], read: false, problem: "" });
  adding.clear();
  adding.newest = undefined;
  backend.answers["GET /models"] = () => [onDisk("Llama"), ...listed.map((name) => onDisk(name, { removable: false }))];
  backend.answers["GET /plan"] = ({ model }) => {
    listed.push(model as string);
    return planned;
  };
});

afterEach(() => vi.restoreAllMocks());

describe("models that are added", () => {
  it("are opened by their path, listed at once, and loaded if it is only one", async () => {
    await adding.add([model("/m/größer als 7 B.gguf")]);
    expect(backend.of("GET /plan")).toEqual([{ model: "/m/größer als 7 B.gguf" }]);
    expect(library.models.map(({ name }) => name)).toContain("/m/größer als 7 B.gguf");
    expect(adding.said).toBe("Added größer als 7 B.gguf.");
    expect(adding.newest).toBe("/m/größer als 7 B.gguf");
    expect(backend.of("POST /models/load")).toEqual([{ model: "/m/größer als 7 B.gguf" }]);
  });

  it("fill no memory if they are several, and all files of one are one", async () => {
    await adding.add([model("/m/a.gguf"), model("/m/b"), model("/m/a.gguf")]);
    expect(backend.of("GET /plan")).toEqual([{ model: "/m/a.gguf" }, { model: "/m/b" }]);
    expect(adding.said).toBe("Added a.gguf, b.");
    expect(backend.of("POST /models/load")).toEqual([]);
    expect(adding.reading).toEqual([]);
  });

  it("wait for those before them, and what was said of these stays", async () => {
    await Promise.all([adding.add([given("a.pt", { kind: "pickled" })]), adding.add([model("/m/b")]), adding.add([given("c.txt", { kind: "other" })])]);
    expect(adding.refused.map((reason) => reason.slice(0, 5))).toEqual(["a.pt ", "c.txt"]);
    expect([adding.said, adding.reading]).toEqual(["Added b.", []]);
    await adding.add([given("d.txt", { kind: "other" })]);
    expect(adding.refused).toHaveLength(1);
  });

  it("are listed even where there is no room for them, and then not loaded", async () => {
    backend.answers["GET /plan"] = ({ model }) => {
      listed.push(model as string);
      throw { code: "does_not_fit", message: "it needs 400 GB", hint: null };
    };
    await adding.add([model("/m/huge.gguf")]);
    expect([adding.said, adding.refused]).toEqual(["Added huge.gguf.", []]);
    expect(backend.of("POST /models/load")).toEqual([]);
  });

  it("that cannot be opened say why, without folders", async () => {
    backend.answers["GET /plan"] = () => {
      throw { code: "unusable", message: "/home/me/models/torn.gguf: it ends early", hint: null };
    };
    await adding.add([model("/home/me/models/torn.gguf")]);
    expect(adding.refused).toEqual(["torn.gguf wasn’t added: Torn.gguf: it ends early."]);
    expect([adding.said, adding.newest]).toEqual(["", undefined]);
  });

  it("that lie in the cache keep the name that they have there", async () => {
    backend.answers["GET /plan"] = () => ({ ...planned, model: "Llama" });
    await adding.add([model("/cache/models--l/snapshots/1/llama.gguf")]);
    expect(adding.said).toBe("Added Llama.");
    expect(backend.of("POST /models/load")).toEqual([{ model: "Llama" }]);
  });
});

describe("what is no model", () => {
  const sentence = async (found: Finding): Promise<string | undefined> => {
    await adding.add([given("X", found)]);
    return adding.refused[0];
  };

  it("says what can be dropped, in one sentence or two", async () => {
    expect(await sentence({ kind: "other" })).toBe("X is not a model. Drop a .gguf file, or a folder with config.json and .safetensors files.");
    expect(await sentence({ kind: "pickled" })).toContain("can contain code");
    expect(await sentence({ kind: "gone" })).toBe("X no longer exists.");
    expect(await sentence({ kind: "closed" })).toContain("permission");
    expect(await sentence({ kind: "parts_missing", missing: 1, of: 3 })).toContain("1 of the 3 files of X is missing");
    expect(await sentence({ kind: "no_config" })).toContain("config.json");
    expect(await sentence({ kind: "no_weights" })).toContain(".safetensors");
    expect(await sentence({ kind: "several" })).toContain("several models");
    expect(await sentence({ kind: "companion" })).toContain("isn’t one");
    expect(await sentence({ kind: "unnameable" })).toContain("Rename it");
    expect(backend.asked).toEqual([]);
  });

  it("does not keep a model beside it from being added, and many are not all listed", async () => {
    const others = ["a.txt", "b.txt", "c.txt", "d.txt", "e.txt"].map((name) => given(name, { kind: "other" }));
    await adding.add([...others, model("/m/a.gguf")]);
    expect(adding.refused).toHaveLength(4);
    expect(adding.refused[3]).toBe("2 more items weren’t added.");
    expect(adding.said).toBe("Added a.gguf.");
  });

  it("and of which nobody knows the place, says how else it can be added", async () => {
    await adding.take([dropped("a.gguf")]);
    expect(adding.refused).toEqual(["HiveMind can’t see where this is. Choose Add a file or folder… instead."]);
  });
});

describe("the dialog", () => {
  it("adds what is chosen, nothing if it is cancelled, and says if it does not open", async () => {
    backend.answers.choose_files = () => [model("/m/a.gguf")];
    await adding.choose();
    expect(adding.said).toBe("Added a.gguf.");
    backend.answers.choose_files = () => [];
    await adding.choose();
    expect([adding.said, adding.refused]).toEqual(["", []]);
    backend.answers.choose_files = () => {
      throw new Error("no display");
    };
    await adding.choose();
    expect(adding.refused).toEqual(["No display"]);
  });
});

it("what is dropped on a chat stays there unless it can only be a model", () => {
  const path = "/m";
  expect(isForModels(dropped("a.gguf", { kind: "model", path }))).toBe(true);
  expect(isForModels(dropped("a-00001-of-00002.gguf", { kind: "parts_missing", missing: 1, of: 2 }))).toBe(true);
  expect(isForModels(dropped("config.json", { kind: "model", path }))).toBe(false);
  expect(isForModels(dropped("firmware.bin", { kind: "pickled" }))).toBe(false);
  expect(isForModels(dropped("notes.txt", { kind: "other" }))).toBe(false);
  expect(isForModels(dropped("my-app", { kind: "no_weights" }))).toBe(false);
  expect(isForModels(dropped("a.gguf"))).toBe(false);
});
