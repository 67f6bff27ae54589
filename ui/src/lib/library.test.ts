import { expect, it } from "vitest";

import { withoutFolders } from "./library.svelte";

it.each([
  ["/Users/me/Application Support/x/config.json: EOF while parsing an object at line 1", "config.json: EOF while parsing an object at line 1"],
  ["there is no model at /a b/c", "there is no model at c"],
  ["/a/b.gguf is neither a .gguf file nor a folder", "b.gguf is neither a .gguf file nor a folder"],
  ["the file is cut at 1/2; I/O failed", "the file is cut at 1/2; I/O failed"],
])("what is wrong with a model is said without a path: %s", (message, said) => {
  expect(withoutFolders(message)).toBe(said);
});
