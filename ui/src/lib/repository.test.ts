import { describe, expect, it } from "vitest";

import { named } from "./repository";

describe("a repository", () => {
  it.each([
    ["owner/name", "owner/name"],
    [" owner/some_Name-4.5 ", "owner/some_Name-4.5"],
    ["owner/name:Q4_K_M", "owner/name:Q4_K_M"],
    ["owner/name@refs/pr/3", "owner/name@refs/pr/3"],
    ["owner/name@dev:Q4_K_M", "owner/name@dev:Q4_K_M"],
    ["owner/name/Q4/a.gguf", "owner/name/Q4/a.gguf"],
    ["hf.co/owner/name:Q8_0", "owner/name:Q8_0"],
    ["https://huggingface.co/owner/name/?library=mlx#use", "owner/name"],
    ["www.huggingface.co/owner/name/tree/main", "owner/name"],
    ["https://huggingface.co/owner/name/tree/refs%2Fpr%2F7", "owner/name@refs/pr/7"],
    ["https://huggingface.co/owner/name/blob/dev/config.json", "owner/name@dev"],
    ["https://hf.co/owner/name/resolve/main/Q4/a.gguf?download=true", "owner/name/Q4/a.gguf"],
  ])("is named by %s", (text, model) => {
    expect(named(text)?.model).toBe(model);
    expect(named(text)?.repository).toBe(model.split(/[@:]/)[0]!.split("/").slice(0, 2).join("/"));
  });

  it.each([
    "qwen3 8b",
    "owner",
    "owner/",
    "owner/name/more",
    "../name",
    "a b/c",
    "https://example.com/owner/name",
    "https://huggingface.co/datasets/owner/name",
    "https://huggingface.co/papers/2401.00001",
    "hf.co/owner/100%",
  ])("is not named by %s", (text) => {
    expect(named(text)).toBeUndefined();
  });
});
