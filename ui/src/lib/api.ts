/** The node's own interface: requests with JSON, and events that a page follows. In the app without a network. */

import { Channel } from "@tauri-apps/api/core";

import { commands } from "./bindings";
import { browser } from "./browser.svelte";
import { call } from "./call";
import { inApp } from "./place";

const ROOT = "/hive/v1";

async function request<T>(method: string, path: string, body?: unknown): Promise<T> {
  if (!inApp()) return (await browser.request(method, ROOT + path, body)) as T;
  const text = await call(commands.request(method, ROOT + path, body === undefined ? null : JSON.stringify(body)));
  return JSON.parse(text) as T;
}

export const api = {
  get: <T>(path: string) => request<T>("GET", path),
  post: <T = unknown>(path: string, body?: unknown) => request<T>("POST", path, body),
  put: <T = unknown>(path: string, body?: unknown) => request<T>("PUT", path, body),
  delete: (path: string) => request<unknown>("DELETE", path),

  /** Follows a route's events, in place of what was followed on the topic before. */
  async follow<T>(topic: string, path: string, take: (event: T) => void): Promise<void> {
    const news = (text: string) => take(JSON.parse(text) as T);
    if (!inApp()) return browser.follow(topic, ROOT + path, news);
    const events = new Channel<string>();
    events.onmessage = news;
    await call(commands.follow(topic, ROOT + path, events));
  },
};
