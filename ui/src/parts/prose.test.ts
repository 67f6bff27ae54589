import { cleanup, fireEvent, render as draw, screen } from "@testing-library/svelte";
import axe from "axe-core";
import { tick } from "svelte";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import * as markdown from "../lib/markdown";
import { words } from "../lib/words";
import Prose from "./Prose.svelte";

// Counts what is rendered, and draws no diagram but those that it can.
vi.mock("../lib/markdown", async (original) => {
  const real = await original<typeof markdown>();
  return { ...real, render: vi.fn(real.render) };
});
const drawing = { src: "data:image/svg+xml,%3Csvg/%3E", width: 120.5, height: 60, kind: "flowchart" };
const diagrams = vi.hoisted(() => ({ draw: vi.fn() }));
vi.mock("../lib/diagrams", () => diagrams);

const rendered = vi.mocked(markdown.render);

beforeEach(() => {
  rendered.mockClear();
  diagrams.draw.mockReset().mockImplementation(async (code: string) => (code.includes("broken") ? undefined : drawing));
});

afterEach(() => {
  cleanup();
  vi.useRealTimers();
});

function body(): HTMLElement {
  return document.querySelector<HTMLElement>(".body")!;
}

it("an answer can be read by everybody", async () => {
  const text = [
    "<think>why</think>\n\n# One\n\n## Two\n\nA [link](https://example.com/), ![a picture](https://example.com/x.png), $a^2$.",
    "- [x] done\n- [ ] not done\n\n| a | b |\n|--:|---|\n| 1 | 2 |\n\n---\n\n> quoted\n\n$$\nb\n$$",
    "```js\nlet x;\n```\n\n```\nplain\n```\n\n```mermaid\ngraph LR\n```\n\n100. many",
  ].join("\n\n");
  draw(Prose, { text, growing: false });
  await screen.findByRole("img");
  await vi.waitFor(() => expect(body().querySelectorAll(".katex").length).toBe(2));
  const found = await axe.run(document.body, { rules: { "color-contrast": { enabled: false }, region: { enabled: false } } });
  expect(found.violations.map(({ id, nodes }) => `${id}: ${nodes[0]?.html}`)).toEqual([]);
});

describe("an answer that grows", () => {
  it("renders only its last block again", async () => {
    const paragraph = "Some words of an answer, with **bold** ones and `code`, one paragraph of many. ";
    const { rerender } = draw(Prose, { text: "", growing: true });
    let text = "";
    let letters = 0;
    for (let count = 0; count < 100; count += 1) {
      for (let part = 0; part < 4; part += 1) {
        text += paragraph.slice(part * 20, (part + 1) * 20);
        rendered.mockClear();
        await rerender({ text, growing: true });
        // The block that grew, or the one that has just begun and what it ends.
        expect(rendered.mock.calls.length).toBeLessThanOrEqual(2);
        letters += rendered.mock.calls.reduce((sum, [block]) => sum + block.length, 0);
      }
      text += "\n\n";
    }
    expect(text.length).toBeGreaterThan(7900);
    expect(letters).toBeLessThan(100 * 4 * 2 * paragraph.length);
    expect(document.querySelectorAll(".body p").length).toBe(100);
    await rerender({ text, growing: true });
    rendered.mockClear();
    await rerender({ text, growing: false });
    expect(rendered).not.toHaveBeenCalled();
  });

  it("does not render thoughts that nobody looks at", async () => {
    const { rerender } = draw(Prose, { text: "<think>", growing: true });
    for (let count = 1; count < 50; count += 1) await rerender({ text: `<think>${"so ".repeat(count)}`, growing: true });
    expect(rendered).not.toHaveBeenCalled();
  });

  it("shows formulas as they were written until KaTeX has loaded, and typesets them at once from then on", async () => {
    const { rerender } = draw(Prose, { text: "so $a^2$ and \\(b", growing: true });
    expect(body().textContent).toContain("$a^2$");
    await vi.waitFor(() => expect(body().querySelectorAll(".katex").length).toBe(1));
    expect(body().textContent).toContain("(b");
    await rerender({ text: "so $a^2$ and \\(b\\)", growing: true });
    expect(body().querySelectorAll(".katex").length).toBe(2);
    await rerender({ text: "so $a^2$ and \\(b\\) but \\(\\unknown\\)", growing: false });
    expect(body().querySelectorAll(".katex").length).toBe(2);
    expect(body().textContent).toContain("\\(\\unknown\\)");
  });
});

describe("a link in an answer", () => {
  const kept = (event: Event): boolean => !screen.getByRole("link").dispatchEvent(event);
  const mouse = (kind: string, more: MouseEventInit = {}) => new MouseEvent(kind, { bubbles: true, cancelable: true, ...more });

  it("asks at every click that would open it, and never leads anywhere", () => {
    const opened = vi.fn();
    draw(Prose, { text: "[**x**](https://example.com/a)", growing: false, opened });
    for (const held of [{}, { ctrlKey: true }, { metaKey: true }, { shiftKey: true }, { altKey: true }]) {
      opened.mockClear();
      expect(kept(mouse("click", held))).toBe(true);
      expect(opened.mock.calls).toEqual([["https://example.com/a"]]);
    }
    opened.mockClear();
    expect(kept(mouse("auxclick", { button: 1 }))).toBe(true);
    expect(opened.mock.calls).toEqual([["https://example.com/a"]]);
    opened.mockClear();
    for (const event of [mouse("auxclick", { button: 2 }), mouse("contextmenu", { button: 2 }), mouse("dragstart")]) {
      expect(kept(event)).toBe(true);
    }
    expect(opened).not.toHaveBeenCalled();
  });

  it("asks once where the window has asked already, and leads nowhere without anybody to ask", async () => {
    const opened = vi.fn();
    const { rerender } = draw(Prose, { text: "<https://example.com/a>", growing: false, opened });
    const first = (event: Event) => event.preventDefault();
    document.addEventListener("click", first, { capture: true });
    kept(mouse("click"));
    document.removeEventListener("click", first, { capture: true });
    expect(opened).not.toHaveBeenCalled();
    await rerender({ opened: undefined });
    expect(kept(mouse("click"))).toBe(true);
  });
});

describe("thoughts", () => {
  const summary = () => document.querySelector("summary")?.textContent;

  it("are folded, and say how long they took", async () => {
    vi.useFakeTimers({ toFake: ["performance"] });
    const { rerender } = draw(Prose, { text: "<think>first", growing: true });
    expect(summary()).toBe(words.thinkingNow);
    expect(screen.queryByText("first")).toBeNull();
    vi.advanceTimersByTime(12_300);
    await rerender({ text: "<think>first</think>\n\nthen", growing: true });
    expect(summary()).toBe("Thought for 12 s");
    vi.advanceTimersByTime(5000);
    await rerender({ text: "<think>first</think>\n\nthen more", growing: false });
    expect(summary()).toBe("Thought for 12 s");
    expect(screen.getByText("then more")).toBeTruthy();
    // Also when the conversation is shown again.
    cleanup();
    draw(Prose, { text: "<think>first</think>\n\nthen more", growing: false });
    expect(summary()).toBe("Thought for 12 s");
  });

  it("say no time that nobody has measured", async () => {
    draw(Prose, { text: "<think>of yesterday</think>\n\nthen", growing: false });
    expect(summary()).toBe(words.thoughts);
    cleanup();
    const long = `<think>${"so ".repeat(100)}`;
    const { rerender } = draw(Prose, { text: long, growing: true });
    expect(summary()).toBe(words.thinkingNow);
    await rerender({ text: `${long}</think>then`, growing: false });
    expect(summary()).toBe(words.thoughts);
  });

  it("unfold, and stay so while they grow", async () => {
    const { rerender } = draw(Prose, { text: "<think>first", growing: true });
    const fold = document.querySelector("details")!;
    fold.open = true;
    await fireEvent(fold, new Event("toggle"));
    expect(screen.getByText("first")).toBeTruthy();
    await rerender({ text: "<think>first **second**", growing: true });
    expect(screen.getByText("second").tagName).toBe("STRONG");
  });

  it("count minutes", () => {
    expect([words.thoughtFor(0.2), words.thoughtFor(59.4), words.thoughtFor(125)]).toEqual([
      "Thought for 1 s",
      "Thought for 59 s",
      "Thought for 2 min 5 s",
    ]);
  });
});

describe("code in an answer", () => {
  const code = "```python\nx = 1\n```\n\n- a\n\n  ```\n  y\n  ```";

  it("is copied as it was written, and says so", async () => {
    const writeText = vi.fn(async () => undefined);
    vi.stubGlobal("navigator", { ...navigator, clipboard: { writeText } });
    draw(Prose, { text: code, growing: false });
    const [first, second] = screen.getAllByRole("button", { name: words.copy });
    await fireEvent.click(first!);
    expect(writeText).toHaveBeenLastCalledWith("x = 1");
    await vi.waitFor(() => expect(first!.textContent).toBe(words.copied));
    await fireEvent.click(second!);
    expect(writeText).toHaveBeenLastCalledWith("y");
    vi.unstubAllGlobals();
  });

  it("wraps its lines on demand, also while it grows", async () => {
    const { rerender } = draw(Prose, { text: "```js\nx", growing: true });
    const wrap = () => screen.getByRole("button", { name: words.wrap });
    const wraps = () => [wrap().getAttribute("aria-pressed") ?? wrap().ariaPressed, !!document.querySelector("figure.wrapped")];
    expect(wraps()).toEqual(["false", false]);
    await fireEvent.click(wrap());
    expect(wraps()).toEqual(["true", true]);
    await rerender({ text: "```js\nx = 1", growing: true });
    expect(wraps()).toEqual(["true", true]);
    await fireEvent.click(wrap());
    expect(wraps()).toEqual(["false", false]);
  });

  it("has colours once it is whole", async () => {
    const { rerender } = draw(Prose, { text: "```python\nif x", growing: true });
    await tick();
    expect(document.querySelector(".hljs-keyword")).toBeNull();
    await rerender({ text: "```python\nif x: pass\n```", growing: false });
    await vi.waitFor(() => expect(document.querySelector(".hljs-keyword")?.textContent).toBe("if"));
    expect(document.querySelector("pre")?.textContent).toBe("if x: pass");
  });
});

describe("a diagram in an answer", () => {
  const text = "```mermaid\ngraph LR\n  A --> B\n```";

  it("is code while it grows, then a picture with a name, and code again on demand", async () => {
    const { rerender } = draw(Prose, { text: "```mermaid\ngraph LR", growing: true });
    await tick();
    expect(diagrams.draw).not.toHaveBeenCalled();
    await rerender({ text, growing: false });
    const picture = await screen.findByRole("img");
    expect(picture.getAttribute("alt")).toBe(words.diagramOf("flowchart"));
    expect([picture.getAttribute("src"), picture.draggable]).toEqual([drawing.src, false]);
    const source = document.querySelector<HTMLElement>("pre")!;
    expect(source.hidden).toBe(true);
    await fireEvent.click(screen.getByRole("button", { name: words.code }));
    expect([source.hidden, screen.queryByRole("img")]).toEqual([false, null]);
  });

  it("that cannot be drawn stays code", async () => {
    draw(Prose, { text: "```mermaid\nbroken\n```", growing: false });
    await vi.waitFor(() => expect(diagrams.draw).toHaveBeenCalledOnce());
    await tick();
    expect(screen.queryByRole("img")).toBeNull();
    expect(document.querySelector("pre")?.hidden).toBe(false);
  });

  it("takes on the colours of the window when they change", async () => {
    draw(Prose, { text, growing: false });
    await screen.findByRole("img");
    document.documentElement.dataset.theme = "dark";
    await vi.waitFor(() => expect(diagrams.draw).toHaveBeenCalledTimes(2));
    expect(document.querySelectorAll("img").length).toBe(1);
    cleanup();
    document.documentElement.dataset.theme = "light";
    await tick();
    expect(diagrams.draw).toHaveBeenCalledTimes(2);
  });
});
