import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { nameOf } from "./browser-name";
import { browser, events } from "./browser.svelte";
import { words } from "./words";

beforeEach(() => {
  localStorage.clear();
  browser.isIn = false;
  browser.problem = "";
  history.replaceState(null, "", "/");
});

afterEach(() => {
  vi.unstubAllGlobals();
});

const reply = (status: number, body: unknown) => new Response(JSON.stringify(body), { status });

it.each([
  ["Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Version/18.0 Mobile/15E148 Safari/604.1", "Safari on iPhone"],
  ["Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 Chrome/140.0.0.0 Mobile Safari/537.36", "Chrome on Android"],
  ["Mozilla/5.0 (Windows NT 10.0; Win64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0", "Edge on Windows"],
  ["Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Mac"],
  ["curl/8", "Browser"],
])("a browser is called what its owner calls it: %s", (agent, name) => {
  expect(nameOf(agent)).toBe(name);
});

it("events are whole, however the network cuts them", () => {
  const text = 'data: {"a":1}\n\n: keep-alive\n\nevent: x\ndata: one\ndata: two\n\ndata: rest';
  for (let size = 1; size < text.length; size += 1) {
    const got: string[] = [];
    const take = events((data) => got.push(data));
    for (let at = 0; at < text.length; at += size) take(text.slice(at, at + size));
    expect(got).toEqual(['{"a":1}', "one\ntwo"]);
  }
});

it("a link lets it in once, and leaves the address", async () => {
  const asked: [string, string][] = [];
  vi.stubGlobal("fetch", (path: string, { body }: { body: string }) => {
    asked.push([path, body]);
    return Promise.resolve(reply(200, { name: "Safari on iPhone", token: "hive-x" }));
  });
  history.replaceState(null, "", "/#in=abc234");
  await browser.open();
  expect([browser.isIn, location.hash, localStorage.getItem("token")]).toEqual([true, "", "hive-x"]);
  expect(asked[0]![0]).toBe("/hive/v1/browsers");
  expect(JSON.parse(asked[0]![1])).toMatchObject({ code: "abc234" });
  await browser.open();
  expect(asked.length).toBe(1);
});

it("a used link says so, unless the browser is in", async () => {
  vi.stubGlobal("fetch", () => Promise.resolve(reply(403, { error: { code: "link_used", message: "this link was used before" } })));
  history.replaceState(null, "", "/#in=abc234");
  await browser.open();
  expect([browser.isIn, browser.problem]).toEqual([false, "This link was used before"]);
  localStorage.setItem("token", "hive-x");
  browser.problem = "";
  history.replaceState(null, "", "/#in=abc234");
  await browser.open();
  expect([browser.isIn, browser.problem]).toEqual([true, ""]);
});

it("a revoked token locks it out, and an unreachable node does not", async () => {
  localStorage.setItem("token", "hive-x");
  await browser.open();
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("Failed to fetch")));
  await expect(browser.request("GET", "/hive/v1/status")).rejects.toMatchObject({ code: "unreachable" });
  expect(browser.isIn).toBe(true);
  vi.stubGlobal("fetch", () => Promise.resolve(reply(401, { error: { code: "revoked", message: "the API token was revoked" } })));
  await expect(browser.request("GET", "/hive/v1/status")).rejects.toMatchObject({ code: "revoked" });
  expect([browser.isIn, localStorage.getItem("token"), browser.problem]).toEqual([false, null, words.keyRevoked]);
});
