/** The node's own interface: requests with JSON, and events that a page follows. */

import { Channel } from "@tauri-apps/api/core";

import { commands } from "./bindings";
import { call } from "./call";

const ROOT = "/hive/v1";

async function request<T>(method: string, path: string, body?: unknown): Promise<T> {
  const text = await call(commands.request(method, ROOT + path, body === undefined ? null : JSON.stringify(body)));
  return JSON.parse(text) as T;
}

export const api = {
  get: <T>(path: string) => request<T>("GET", path),
  post: <T = unknown>(path: string, body?: unknown) => request<T>("POST", path, body),
  delete: (path: string) => request<unknown>("DELETE", path),

  /** Follows a route's events, in place of what was followed on the topic before. */
  async follow<T>(topic: string, path: string, take: (event: T) => void): Promise<void> {
    const events = new Channel<string>();
    events.onmessage = (text) => take(JSON.parse(text) as T);
    await call(commands.follow(topic, ROOT + path, events));
  },
};
