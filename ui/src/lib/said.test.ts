/** What the node says as a value is said in the window's language, and in its own words if there are no others. */
import { afterEach, describe, expect, it } from "vitest";

import { planned } from "../testing";
import type { Reason } from "./bindings";
import type { LogLine } from "./node";
import { happened, reasons } from "./said";
import { speak } from "./words";

afterEach(() => speak("en"));

const alone: Reason = { kind: "fits_alone", machine: "Studio", tokens_per_s: 38.2 };
const text = "Fits on Studio alone, with no network hops: about 38 tok/s.";

describe("the reasons of a plan", () => {
  it("are the node's in English, and of the window in German", async () => {
    const plan = { ...planned, reasons: [text], because: [alone] };
    expect(reasons(plan)).toEqual([text]);
    await speak("de");
    expect(reasons(plan)).toEqual(["Passt ganz auf Studio, ohne Umweg über das Netzwerk: etwa 38\u00a0tok/s."]);
  });

  it("are the node's if it says what this window does not know, or says no more than words", async () => {
    await speak("de");
    const newer = { kind: "moon_phase" } as unknown as Reason;
    expect(reasons({ ...planned, reasons: ["The moon is full"], because: [newer] })).toEqual(["The moon is full."]);
    expect(reasons({ ...planned, reasons: [text], because: undefined })).toEqual([text]);
    expect(reasons({ ...planned, reasons: ["The moon is full."], because: [{ kind: "constructor" } as unknown as Reason] })).toEqual(["The moon is full."]);
  });

  it("name machines as people do", async () => {
    await speak("de");
    const because: Reason[] = [
      { kind: "tried_again", machines: ["Mini", "Attic", "Studio"] },
      { kind: "output_layer", layers: 1 },
      { kind: "would_slow", machine: "Mini", tokens_per_s: 1.25 },
    ];
    const said = reasons({ ...planned, reasons: because.map(() => ""), because });
    expect(said[0]).toContain("Mini, Attic und Studio werden noch einmal versucht");
    expect(said[1]).toContain("so groß ist wie eine Schicht.");
    expect(said[2]).toContain("um 1,3\u00a0tok/s langsamer.");
  });
});

describe("a line of the log", () => {
  const at = "2026-11-27T13:02:00Z";
  const machine = { name: "Mini", fingerprint: "otter-lamp-river" };

  it.each<[LogLine, string]>([
    [{ at, text: "", event: "loaded", machine, model: "SmolLM2", layers: [0, 16], bytes: 204e6, standby: true }, "Mini hat als Reserve Schichten 1–16 von SmolLM2 geladen (204\u00a0MB)"],
    [{ at, text: "", event: "freed", machine, model: "SmolLM2", layers: [29, 30] }, "Schicht 30 von SmolLM2 für Mini freigegeben"],
    [{ at, text: "", event: "approved", machine, code: "482 915" }, "Mini (otter-lamp-river) zugelassen: Code 482 915"],
    [{ at, text: "", event: "used", machine, sessions: 1, tokens: 12_345, seconds: 150 }, "Mini hat diesen Rechner genutzt: 1 Chat, 12.345 Token, 2\u00a0min"],
    [{ at, text: "", event: "refused", machine, asked: "load", why: "not_sharing", count: 4812 }, "Mini abgewiesen (Laden von Schichten): Dieser Rechner gab nichts frei, 4.812-mal"],
    [{ at, text: "", event: "rights_changed", machine, memory: true, prompts: false, memory_limit_bytes: 4e9, session_limit: null }, "Mini darf den Speicher dieses Rechners nutzen (höchstens 4,0\u00a0GB) und Ihre Fragen nicht sehen"],
    [{ at, text: "", event: "left_out", entries: 1 }, "1 weiterer Eintrag an diesem Tag nicht aufgezeichnet"],
    [{ at, text: "", event: "invited", valid_for_s: 86_400 }, "Einladung erstellt, gültig für 24\u00a0h"],
  ])("is said in German: %s", async (line, said) => {
    await speak("de");
    expect(happened(line)).toBe(said);
  });

  it("is the node's in English, and where there are no words for it", async () => {
    const line = { at, text: "Mini was removed", event: "removed", machine } as const;
    expect(happened(line)).toBe("Mini was removed");
    await speak("de");
    expect(happened(line)).toBe("Mini (otter-lamp-river) entfernt");
    expect(happened({ at, text: "the moon is full" })).toBe("the moon is full");
    expect(happened({ at, text: "the moon is full", event: "moon_phase" } as unknown as LogLine)).toBe("the moon is full");
  });
});
