/** The node as a browser reaches it: by HTTP, with a token of this browser's own. */

import { nameOf } from "./browser-name";
import { why } from "./call";
import { words } from "./words";

/** Local storage key of the token. */
const TOKEN = "token";

/** Pause before a stream that broke is opened again. */
const AGAIN_MS = 1000;

/** A link's fragment: "#in=code". */
const LINK = /^#in=([a-z0-9]+)$/;

type Failure = { code: string; message: string; hint: string | null };

const unreachable = (message: string): Failure => ({ code: "unreachable", message, hint: null });

/** The data of each event in a stream, which comes in pieces. */
export function events(take: (data: string) => void): (piece: string) => void {
  let rest = "";
  return (piece) => {
    const frames = (rest + piece).split("\n\n");
    rest = frames.pop() ?? "";
    for (const frame of frames) {
      const data = frame.split("\n").flatMap((line) => (line.startsWith("data: ") ? [line.slice(6)] : []));
      if (data.length > 0) take(data.join("\n"));
    }
  };
}

class Browser {
  /** Whether this browser was let in. */
  isIn = $state(false);
  /** Why not. */
  problem = $state("");

  #followed = new Map<string, AbortController>();

  /** Uses the token that was kept, or exchanges the code of the link that was opened. */
  async open(): Promise<void> {
    const [, code] = LINK.exec(location.hash) ?? [];
    if (code) {
      // It is used up either way.
      history.replaceState(null, "", location.pathname);
      try {
        const { token } = await this.#ask<{ token: string }>("POST", "/hive/v1/browsers", { code, name: nameOf(navigator.userAgent) });
        localStorage.setItem(TOKEN, token);
      } catch (thrown) {
        if (!localStorage.getItem(TOKEN)) this.problem = why(thrown);
      }
    }
    this.isIn = localStorage.getItem(TOKEN) !== null;
  }

  async request(method: string, path: string, body?: unknown): Promise<unknown> {
    return this.#ask(method, path, body);
  }

  /** Follows a route's events, in place of what was followed on the topic before. A stream that breaks is opened again. */
  async follow(topic: string, path: string, take: (data: string) => void): Promise<void> {
    this.#followed.get(topic)?.abort();
    const ended = new AbortController();
    this.#followed.set(topic, ended);
    // The first one tells whether there is such a route.
    const first = await this.#fetch("GET", path, undefined, ended.signal);
    void this.#read(first, path, take, ended.signal);
  }

  async #read(stream: Response | undefined, path: string, take: (data: string) => void, signal: AbortSignal): Promise<void> {
    while (!signal.aborted && this.isIn) {
      try {
        stream ??= await this.#fetch("GET", path, undefined, signal);
        const reader = stream.body!.pipeThrough(new TextDecoderStream()).getReader();
        const frames = events(take);
        for (let part = await reader.read(); !part.done; part = await reader.read()) frames(part.value);
      } catch {
        // The network, or the node, is away for a while.
      }
      stream = undefined;
      await new Promise((after) => setTimeout(after, AGAIN_MS));
    }
  }

  async #ask<T>(method: string, path: string, body?: unknown): Promise<T> {
    return (await (await this.#fetch(method, path, body)).json()) as T;
  }

  async #fetch(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
    const token = localStorage.getItem(TOKEN);
    const headers: Record<string, string> = { "content-type": "application/json" };
    if (token) headers.authorization = `Bearer ${token}`;
    const response = await fetch(path, {
      method,
      headers,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(signal ? { signal } : {}),
    }).catch((error: unknown) => {
      // As a refusal is: an object, not an Error.
      // eslint-disable-next-line @typescript-eslint/only-throw-error
      throw unreachable(String(error));
    });
    if (response.ok) return response;
    const reply = (await response.json().catch(() => undefined)) as { error: Failure } | undefined;
    if (response.status === 401) this.#leave();
    // eslint-disable-next-line @typescript-eslint/only-throw-error
    throw reply?.error ?? unreachable(response.statusText);
  }

  /** The token was revoked: this browser has to be let in again. */
  #leave(): void {
    localStorage.removeItem(TOKEN);
    this.problem = words.keyRevoked;
    this.isIn = false;
    for (const followed of this.#followed.values()) followed.abort();
    this.#followed.clear();
  }
}

export const browser = new Browser();
