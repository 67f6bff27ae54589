/**
 * Draws diagrams from Mermaid's source. Mermaid is large, and its input is untrusted: it runs in a frame of its own origin,
 * which may load nothing and reach nothing. The drawing comes back as text and is shown as a picture, in which nothing runs,
 * loads or can be clicked.
 */

import mermaid from "@mermaid-js/tiny/dist/mermaid.tiny.js?url";

import script from "./diagram-frame.js?url";

/** A drawing, with its size in pixels and the kind of diagram that it is. */
export interface Drawing {
  src: string;
  width: number;
  height: number;
  kind: string;
}

/** Longer sources stay text. */
const LONGEST = 20_000;

/** How long the frame may take to load, and a diagram to be drawn. */
const PATIENCE_MS = 10_000;

/**
 * The page in the frame. The app's policy holds there too; once the scripts are in, the page's own takes away all that is
 * left of it. (WebKit refuses the scripts if it comes first.)
 */
export function page(scripts: string[]): string {
  const tags = scripts.map((from) => `<script src="${from}"></script>`);
  const policy = `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">`;
  return `<!doctype html><html><head><meta charset="utf-8">${tags.join("")}${policy}</head><body></body></html>`;
}

/** Waits for the frame's next message. */
function said<Message>(frame: HTMLIFrameElement, ours: (message: Message) => boolean): Promise<Message> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("message", hear);
    };
    const timer = setTimeout(() => {
      end();
      reject(new Error("the frame says nothing"));
    }, PATIENCE_MS);
    const hear = ({ source, data }: MessageEvent<Message>) => {
      if (source !== frame.contentWindow || !ours(data)) return;
      end();
      resolve(data);
    };
    addEventListener("message", hear);
  });
}

async function open(): Promise<HTMLIFrameElement> {
  const frame = document.createElement("iframe");
  // Scripts, but not this page's origin: no storage, no access to this page, no windows, no navigation.
  frame.setAttribute("sandbox", "allow-scripts");
  frame.setAttribute("aria-hidden", "true");
  frame.tabIndex = -1;
  // Seen by nobody, but with room: Mermaid measures text.
  frame.style.cssText = "position:fixed;left:-10000px;top:0;width:1200px;height:800px;border:0;visibility:hidden;pointer-events:none";
  frame.srcdoc = page([mermaid, script].map((path) => new URL(path, location.href).href));
  document.body.append(frame);
  try {
    await said<{ ready?: boolean }>(frame, (message) => message.ready === true);
  } catch (error) {
    frame.remove();
    throw error;
  }
  return frame;
}

let frame: Promise<HTMLIFrameElement> | undefined;
let last: Promise<unknown> = Promise.resolve();
let count = 0;

/** The window's colours, as Mermaid names them. */
function theme(): Record<string, string | boolean> {
  const style = getComputedStyle(document.documentElement);
  const token = (name: string) => style.getPropertyValue(`--${name}`).trim();
  return {
    darkMode: style.colorScheme === "dark" || document.documentElement.dataset.theme === "dark",
    background: token("paper"),
    primaryColor: token("paper-2"),
    primaryTextColor: token("ink"),
    primaryBorderColor: token("edge"),
    secondaryColor: token("honey-soft"),
    tertiaryColor: token("paper-3"),
    lineColor: token("ink-2"),
    textColor: token("ink"),
    edgeLabelBackground: token("paper"),
    noteBkgColor: token("honey-soft"),
    noteTextColor: token("ink"),
    noteBorderColor: token("edge"),
    pieStrokeColor: token("edge"),
    pieOuterStrokeColor: token("edge"),
    useGradient: false,
    dropShadow: "none",
    fontFamily: getComputedStyle(document.body).fontFamily,
    fontSize: "13px",
  };
}

/** Draws a diagram in the window's colours; undefined if it cannot be drawn. Diagrams are drawn one after another. */
export function draw(code: string): Promise<Drawing | undefined> {
  const drawn = last.then(() => now(code)).catch(() => undefined);
  last = drawn;
  return drawn;
}

type Answer = { id: number; svg?: string; width: number; height: number; kind: string };

async function now(code: string): Promise<Drawing | undefined> {
  if (code.length > LONGEST) return undefined;
  frame ??= open();
  frame.catch(() => (frame = undefined));
  const room = await frame;
  const id = (count += 1);
  const answer = said<Answer>(room, (message) => message.id === id);
  room.contentWindow?.postMessage({ id, code, theme: theme() }, "*");
  const { svg, width, height, kind } = await answer;
  if (!svg) return undefined;
  return { src: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`, width, height, kind };
}
