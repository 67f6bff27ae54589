import { describe, expect, it } from "vitest";

import { parts } from "./thoughts";

/** The parts of a text as "thought: …" and "said: …". */
function told(text: string, growing = false): string[] {
  return parts(text, growing).map((part) => `${part.thought ? "thought" : "said"}: ${part.text}`);
}

describe("the thoughts of an answer", () => {
  it.each([
    ["<think>why</think>because"],
    ["\n<think>\nwhy\n</think>\n\nbecause"],
    ["<thinking>why</thinking> because"],
    ["<seed:think>why</seed:think>because"],
    ["[THINK]why[/THINK]because"],
    ["◁think▷why◁/think▷because"],
    ["<|START_THINKING|>why<|END_THINKING|>because"],
    ["<|channel|>analysis<|message|>why<|end|><|start|>assistant<|channel|>final<|message|>because<|return|>"],
    ["analysis'why'assistantfinalbecause"],
    ["<|channel>thought\nwhy<channel|>because"],
    ["why\n</think>\n\nbecause"],
  ])("are apart from what it says: %s", (text) => {
    expect(told(text).map((part) => part.replaceAll("'", ""))).toEqual(["thought: why", "said: because"]);
  });

  it("grow until they end, and then the answer grows", () => {
    expect(parts("<think>why", true)).toEqual([{ thought: true, text: "why", open: true }]);
    expect(parts("<think>why</think>be", true)).toEqual([
      { thought: true, text: "why", open: false },
      { thought: false, text: "be", open: true },
    ]);
  });

  it("may be several, and empty ones are dropped", () => {
    expect(told("<think>a</think>\n<think>b</think>c")).toEqual(["thought: a", "thought: b", "said: c"]);
    expect(told("<think>\n\n</think>\n\nc")).toEqual(["said: c"]);
    const several = "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary<|message|>b<|end|>";
    expect(told(`${several}<|start|>assistant<|channel|>final<|message|>c`)).toEqual(["thought: a", "thought: b", "said: c"]);
  });

  it("do not show their mark while it arrives", () => {
    const text = "<|channel|>analysis<|message|>why";
    for (let end = 1; end <= text.length; end += 1) expect(told(text.slice(0, end), true).join()).not.toContain("said");
    expect(told("<", false)).toEqual(["said: <"]);
  });

  it.each([
    "The tag `<think>` begins a thought and `</think>` ends it.",
    "Write\n```xml\n<think>\nwhy\n</think>\n```\nso.",
    "analysis of the text, and assistantfinal",
    "Write\n```xml\nwhy\n</think>\n```\nso.",
    "It says `</think>`\nand goes on",
  ])("are not what only speaks of them: %s", (text) => {
    expect(told(text)).toEqual([`said: ${text}`]);
  });
});
