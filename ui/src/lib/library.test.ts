import { describe, expect, it } from "vitest";

import { loadOf, withoutFolders } from "./library.svelte";

it.each([
  ["/Users/me/Application Support/x/config.json: EOF while parsing an object at line 1", "config.json: EOF while parsing an object at line 1"],
  ["there is no model at /a b/c", "there is no model at c"],
  ["/a/b.gguf is neither a .gguf file nor a folder", "b.gguf is neither a .gguf file nor a folder"],
  ["the file is cut at 1/2; I/O failed", "the file is cut at 1/2; I/O failed"],
])("what is wrong with a model is said without a path: %s", (message, said) => {
  expect(withoutFolders(message)).toBe(said);
});

describe("the load of a model", () => {
  const loads = ["o/n-8bit", "o/n/m-Q8_0.gguf", "o/n/m-Q4_K_M.gguf", "o/n@abc/m-Q4_K_M.gguf"].map((name) => ({ name, layers: 0, of: 1, fetched: 0, fetching: 9 }));

  it.each([
    ["o/n-8bit", "o/n-8bit"],
    ["o/n", "o/n/m-Q8_0.gguf"],
    ["o/n:q4_k_m", "o/n/m-Q4_K_M.gguf"],
    ["o/n@abc:Q4_K_M", "o/n@abc/m-Q4_K_M.gguf"],
    ["o/n:Q5_0", undefined],
    ["o/n-8", undefined],
  ])("of %s is that of %s", (model, load) => {
    expect(loadOf(loads, model)?.name).toBe(load);
  });
});
