/** Fields of prompts, prompts in the language of the window, and which are found. */
import { afterEach, expect, it } from "vitest";

import { type Prompt, fields, fill, matching, shown } from "./prompts";
import { speak } from "./words";

const prompt = (name: string, text = "", more: Partial<Prompt> = {}): Prompt => ({ id: name, name, text, starter: false, ...more });

afterEach(() => speak("en"));

it("finds each field once, and fills it wherever it is", () => {
  const text = "From {{a}} to {{ b c }}, then {{a}}. {no} {{}} {{\n}}";
  expect(fields(text)).toEqual(["a", "b c"]);
  expect(fill(text, { a: "$& {{x}}", "b c": "Rome" })).toBe("From $& {{x}} to Rome, then $& {{x}}. {no} {{}} {{\n}}");
  expect(fill("{{other}}", { a: "1" })).toBe("{{other}}");
});

it("shows what came with HiveMind in the language of the window, until it is changed", async () => {
  const own = prompt("Translate", "x", { id: "translate", starter: true });
  expect(fields(shown(own).text)).toEqual(["language", "text"]);
  await speak("de");
  expect(shown(own).name).toBe("Übersetzen");
  expect(shown({ ...own, starter: false })).toEqual({ ...own, starter: false });
  expect(shown({ ...own, id: "newer" }).name).toBe("Translate");
});

it("finds all words anywhere, names first", () => {
  const prompts = [prompt("A letter", "about bees"), prompt("Bees", "a poem"), prompt("Ants")];
  expect(matching(prompts, "BEE").map(({ name }) => name)).toEqual(["Bees", "A letter"]);
  expect(matching(prompts, "poem bee").map(({ name }) => name)).toEqual(["Bees"]);
  expect(matching(prompts, " ").map(({ name }) => name)).toEqual(["A letter", "Ants", "Bees"]);
  expect(matching(prompts, "wasp")).toEqual([]);
});
