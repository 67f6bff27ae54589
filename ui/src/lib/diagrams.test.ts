import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

vi.mock("@mermaid-js/tiny/dist/mermaid.tiny.js?url", () => ({ default: "/assets/mermaid.js" }));

type Diagrams = typeof import("./diagrams");
let diagrams: Diagrams;
let asked: { id: number; code: string; theme: Record<string, unknown> }[] = [];

const frames = () => document.querySelectorAll("iframe");
const frame = () => frames()[0]!;

/** What the frame says to its page. */
function says(data: unknown, source: unknown = frame().contentWindow): void {
  window.dispatchEvent(new MessageEvent("message", { data, source: source as Window }));
}

/** Stands for the frame, which cannot run here: it draws what it is sent as soon as it is ready. */
async function ready(answer: (id: number, code: string) => unknown): Promise<void> {
  await vi.waitFor(() => expect(frames().length).toBe(1));
  vi.spyOn(frame().contentWindow!, "postMessage").mockImplementation(((data: (typeof asked)[number]) => {
    asked.push(data);
    queueMicrotask(() => says(answer(data.id, data.code)));
  }) as never);
  says({ ready: true });
}

beforeEach(async () => {
  vi.resetModules();
  diagrams = await import("./diagrams");
  asked = [];
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
  document.body.innerHTML = "";
});

const svg = (code: string) => `<svg xmlns="http://www.w3.org/2000/svg"><text>${code}#"%</text><script>alert(1)</script></svg>`;

describe("a diagram", () => {
  it("is drawn in a frame that has scripts and no other right, and that nobody meets", async () => {
    const drawn = diagrams.draw("graph");
    await vi.waitFor(() => expect(frames().length).toBe(1));
    expect(frame().getAttribute("sandbox")).toBe("allow-scripts");
    expect([frame().getAttribute("src"), frame().getAttribute("allow"), frame().tabIndex, frame().getAttribute("aria-hidden")]).toEqual([
      null,
      null,
      -1,
      "true",
    ]);
    const page = new DOMParser().parseFromString(frame().srcdoc, "text/html");
    // After the two scripts, which are the app's own, nothing may be loaded or run.
    const [charset, mermaid, own, policy] = page.head.children;
    expect(charset?.getAttribute("charset")).toBe("utf-8");
    for (const script of [mermaid, own]) expect(script?.getAttribute("src")).toMatch(new RegExp(`^${location.origin}/.*\\.js`));
    expect(policy?.getAttribute("http-equiv")).toBe("Content-Security-Policy");
    expect(policy?.getAttribute("content")).toBe("default-src 'none'; style-src 'unsafe-inline'");
    expect([page.head.children.length, page.body.children.length, page.querySelectorAll("script:not([src])").length]).toEqual([4, 0, 0]);
    await ready((id) => ({ id, problem: "none" }));
    await drawn;
  });

  it("comes back as a picture, in which nothing can run", async () => {
    const drawn = diagrams.draw("graph");
    await ready((id, code) => ({ id, svg: svg(code), width: 10, height: 20, kind: "flowchart" }));
    const { src, ...more } = (await drawn)!;
    expect(more).toEqual({ width: 10, height: 20, kind: "flowchart" });
    expect(src).toBe(`data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg("graph"))}`);
  });

  it("is drawn after those before it, in the same frame", async () => {
    const drawn = Promise.all(["a", "b", "c"].map((code) => diagrams.draw(code)));
    await ready((id, code) => (code === "b" ? { id, problem: "no" } : { id, svg: svg(code), width: 1, height: 1, kind: "" }));
    expect((await drawn).map((drawing) => drawing !== undefined)).toEqual([true, false, true]);
    expect([frames().length, asked.map(({ code }) => code)]).toEqual([1, ["a", "b", "c"]]);
  });

  it("is not what somebody else says", async () => {
    const drawn = diagrams.draw("a");
    await vi.waitFor(() => expect(frames().length).toBe(1));
    says({ ready: true }, window);
    await ready((id) => {
      says({ id, svg: "<svg>evil</svg>", width: 1, height: 1, kind: "" }, window);
      says({ id: id + 1, svg: "<svg>late</svg>", width: 1, height: 1, kind: "" });
      return { id, svg: "<svg/>", width: 1, height: 1, kind: "" };
    });
    expect((await drawn)?.src).toBe(`data:image/svg+xml;charset=utf-8,${encodeURIComponent("<svg/>")}`);
  });

  it("that takes too long stays text, and a frame that never came is tried again", async () => {
    vi.useFakeTimers();
    const never = diagrams.draw("a");
    await vi.advanceTimersByTimeAsync(10_000);
    expect([await never, frames().length]).toEqual([undefined, 0]);
    vi.useRealTimers();
    const again = diagrams.draw("b");
    await ready((id) => ({ id, svg: "<svg/>", width: 1, height: 1, kind: "" }));
    expect(await again).toBeDefined();
  });

  it("of more than 20,000 letters stays text", async () => {
    expect(await diagrams.draw("a".repeat(20_001))).toBeUndefined();
    expect(frames().length).toBe(0);
  });
});
