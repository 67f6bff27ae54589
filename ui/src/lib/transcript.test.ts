import { describe, expect, it } from "vitest";

import { estimateTokens, parse } from "./attachments";
import { message } from "../testing/node";
import { said, summaryRequest, summaryTokens, transcript } from "./transcript";

const question = (text: string) => message({ role: "user", text });
const answer = (text: string) => message({ text });

describe("a transcript", () => {
  it("is the whole conversation where that fits, without thoughts", () => {
    const messages = [question("Where?"), answer("<think>Hm.</think>\nLisbon."), question("When?"), answer("")];
    expect(transcript(messages, 6000, 8192)).toEqual({ text: "User: Where?\n\nAssistant: Lisbon.\n\nUser: When?", used: 3, of: 3 });
  });

  it("is the newest messages otherwise, as many as fit beside the summary", () => {
    const messages = Array.from({ length: 40 }, (_, number) => question(`${number} ${"bees make honey ".repeat(50)}`));
    // The model's own count is twice the estimate.
    const all = messages.reduce((sum, { text }) => sum + estimateTokens(text), 0) * 2;
    const limit = Math.round(all * 1.02);
    const { text, used, of } = transcript(messages, all, limit);
    expect(of).toBe(40);
    expect(used).toBeLessThan(40);
    expect(used).toBeGreaterThan(30);
    expect(text.startsWith(`User: ${40 - used} bees`)).toBe(true);
    expect(text).toContain("User: 39 bees");
    expect(estimateTokens(text) * 2).toBeLessThan(limit - summaryTokens(limit));
    // Less is tried if the node refuses that.
    expect(transcript(messages, all, limit, 0.5).used).toBeLessThan(used * 0.6);
  });

  it("is the end of a last message that alone is too long", () => {
    const long = "x".repeat(40_000) + " the end";
    const { text, used, of } = transcript([question("Why?"), answer(long)], 12_000, 8192);
    expect([used, of]).toEqual([0, 2]);
    expect(text.endsWith(" the end")).toBe(true);
    expect(text.length).toBeGreaterThan(10_000);
    expect(text.length).toBeLessThan(30_000);
  });

  it("goes with a request, as a file of its own", () => {
    const { text, files } = parse(summaryRequest("Lisbon", { text: "User: Where?", used: 1, of: 1 }));
    expect(files).toEqual([{ name: "Lisbon", text: "User: Where?" }]);
    expect(text).toContain("Summarize the chat above");
  });

  it("leaves the model a sixth of what it reads, and no more than it needs", () => {
    expect([summaryTokens(2048), summaryTokens(131_072)]).toEqual([341, 700]);
    expect(said("<think>Well</think>\n Yes.")).toBe("Yes.");
  });
});
