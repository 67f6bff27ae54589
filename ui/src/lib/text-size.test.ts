import { mockIPC } from "@tauri-apps/api/mocks";
import { beforeEach, expect, it, vi } from "vitest";

let set: unknown[] = [];

beforeEach(() => {
  set = [];
  vi.resetModules();
  mockIPC((command, given) => void set.push([command, given]));
});

/** The module as a window that has just opened has it. */
const opened = async () => (await import("./text-size.svelte")).textSize;

it("text grows and shrinks by steps, within its limits, and is remembered", async () => {
  localStorage.clear();
  let size = await opened();
  size.restore();
  // At its usual size there is nothing to do.
  expect(set).toEqual([]);
  size.bigger();
  size.bigger();
  expect(size.percent).toBe(125);
  expect(set.at(-1)).toEqual(["text_size", { percent: 125 }]);
  vi.resetModules();
  size = await opened();
  expect(size.percent).toBe(125);
  size.restore();
  expect(set.at(-1)).toEqual(["text_size", { percent: 125 }]);
  for (let step = 0; step < 9; step++) size.bigger();
  expect(size.percent).toBe(200);
  for (let step = 0; step < 9; step++) size.smaller();
  expect(size.percent).toBe(80);
  size.usual();
  expect(size.percent).toBe(100);
});

it("a size that somebody else wrote is brought within the limits", async () => {
  for (const [kept, percent] of [["9000", 200], ["-3", 80], ["", 80], ["large", 100], ["140", 150]] as const) {
    localStorage.setItem("text-size", kept);
    vi.resetModules();
    expect((await opened()).percent, kept).toBe(percent);
  }
});
