/** Both languages say the same things, each in its own way. */
import { afterEach, describe, expect, it } from "vitest";

import { why } from "./call";
import { typed, untyped } from "./numbers";
import { age, away, english, gigabytes, layers, milliseconds, moment, rate, speak, spoken, speed, words } from "./words";
import { german } from "./words.de";

type Tree = { [key: string]: unknown };

/** Every entry of a language by its path. */
function entries(words: Tree, within = ""): Map<string, unknown> {
  const found = new Map<string, unknown>();
  for (const [key, value] of Object.entries(words)) {
    if (typeof value === "object" && value !== null) {
      for (const [path, entry] of entries(value as Tree, `${within}${key}.`)) found.set(path, entry);
    } else found.set(within + key, value);
  }
  return found;
}

// Errors and what the node says have sentences of their own in German only.
const [one, other] = [english, german].map((language) => entries({ ...language, problems: {}, said: {} })) as [Map<string, unknown>, Map<string, unknown>];

/** Entries that are the same in both languages: names, signs, and words that both have. */
const SAME = [
  "chat",
  "relay",
  "topP",
  "chip",
  "now",
  "updates",
  "stopKey",
  "code",
  "huggingFace",
  "megabits",
  "webAddress",
  "shortcuts.chat",
  "shortcutGroups.chats",
  "modelFilters.code",
];

/** What a function fills in: the names of its parameters that its text uses. */
function filled(entry: (...given: never[]) => unknown): number {
  const source = entry.toString();
  const given = /^(?:async )?(?:function \w*)?\(?([^)=]*?)\)?\s*(?:=>|\{)/.exec(source)?.[1] ?? "";
  const names = given.split(",").map((name) => name.trim()).filter(Boolean);
  const body = source.slice(source.indexOf(given) + given.length);
  return names.filter((name) => new RegExp(`\\b${name}\\b`).test(body)).length;
}

afterEach(() => speak("en"));

describe("German and English", () => {
  it("have the same entries", () => {
    expect([...other.keys()].sort()).toEqual([...one.keys()].sort());
  });

  it("fill in the same", () => {
    for (const [path, entry] of one) {
      const translated = other.get(path);
      expect(typeof translated, path).toBe(typeof entry);
      if (typeof entry !== "function" || typeof translated !== "function") continue;
      expect(translated.length, path).toBe(entry.length);
      expect(filled(translated as never), path).toBe(filled(entry as never));
    }
  });

  it("differ in all but a few words", () => {
    const same = [...one].filter(([path, entry]) => typeof entry === "string" && other.get(path) === entry).map(([path]) => path);
    expect(same.sort()).toEqual([...SAME].sort());
  });

  it("are typeset as people read them", () => {
    for (const [path, entry] of other) {
      const text = typeof entry === "string" ? entry : String(entry);
      // An ellipsis stands for words that are left out, behind a space that does not break.
      expect(/[\p{L}:,]…|[\p{L}:,] …/u.test(text.replace(/\[[^\]]*\]/g, "")), path).toBe(false);
      // English quotation marks, and a unit behind a space that breaks.
      expect(/“[^“]*”|\d (?:GB|MB|%|s|ms|min)\b/.test(text), path).toBe(false);
    }
  });
});

describe("the language of the window", () => {
  it("is that of words, numbers, dates and the page", async () => {
    await speak("de");
    expect([words.send, spoken, document.documentElement.lang]).toEqual(["Senden", "de", "de"]);
    expect([gigabytes(4.1e9), milliseconds(0.34), rate(9.4e9), speed(7.25)]).toEqual(["4,1\u00a0GB", "0,3\u00a0ms", "9,4\u00a0Gbit/s", "7,3\u00a0tok/s"]);
    expect(layers([[0, 18]])).toBe("Schichten 1–18");
    expect(words.reading(45_030, 81_920)).toBe("Liest: 45.030 von 81.920 Token");
    const noon = new Date(2026, 10, 24, 12).getTime() / 1000;
    expect([0, 1, 30].map((days) => moment(noon - days * 86_400, noon))).toEqual(["12:00", "gestern 12:00", "25. Oktober"]);
    expect([0, 1, 30].map((days) => age(noon - days * 86_400, noon))).toEqual(["Heute", "Diese Woche", "Älter"]);
    expect(away(null)).toBe("abwesend");
    await speak("en");
    expect([words.send, gigabytes(4.1e9), document.documentElement.lang]).toEqual(["Send", "4.1 GB", "en"]);
  });

  it("is the one that was chosen last, however long its words take", async () => {
    const first = speak("de");
    await speak("en");
    await first;
    expect([words.send, spoken]).toEqual(["Send", "en"]);
  });

  it("has a comma where settings have a point", async () => {
    await speak("de");
    expect([typed("8.6"), untyped("8,6"), untyped("8.6")]).toEqual(["8,6", "8.6", "8.6"]);
    await speak("en");
    expect([typed("8.6"), untyped("8,6")]).toEqual(["8.6", "8,6"]);
  });

  it("is that of errors whose code is known", async () => {
    const gone = { code: "no_such_conversation", message: "there is no conversation c", hint: null };
    const full = { code: "not_kept", message: "the disk is full", hint: "Free some space." };
    expect(why(gone)).toBe("There is no conversation c");
    await speak("de");
    expect(why(gone)).toBe("Diesen Chat gibt es nicht mehr.");
    expect(why(full)).toBe("Das ließ sich nicht sichern. Meldung: „The disk is full. Free some space.“");
    expect(why({ code: "moon_phase", message: "the moon is full", hint: null })).toBe("The moon is full");
  });
});

describe("the codes of errors that have a sentence", () => {
  const sources = import.meta.glob<string>(["../../../crates/hive-api/src/**/*.rs", "../../../src-tauri/src/*.rs", "./node.ts"], {
    query: "?raw",
    import: "default",
    eager: true,
  });
  const all = Object.values(sources).join("\n");

  it.each(Object.keys(german.problems))("%s is still one", (code) => {
    expect(all.includes(`"${code}"`)).toBe(true);
  });
});
