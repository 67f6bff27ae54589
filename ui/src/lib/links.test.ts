import { mockIPC } from "@tauri-apps/api/mocks";
import { beforeEach, describe, expect, it } from "vitest";

import { links, read } from "./links.svelte";

let opened: unknown[] = [];
let refuses = false;

beforeEach(() => {
  opened = [];
  refuses = false;
  localStorage.clear();
  links.close();
  mockIPC((command, given) => {
    if (refuses) throw { code: "not_opened", message: "there is no browser", hint: null };
    opened.push([command, given]);
    return null;
  });
});

describe("a link", () => {
  it("is for a browser or a mail program, or is none", () => {
    expect(read("https://example.com:8080/a?q=1")).toMatchObject({ name: "example.com:8080", site: "https://example.com:8080" });
    expect(read("mailto:a@example.com?subject=Hi")).toMatchObject({ name: "a@example.com", mail: true, site: "" });
    for (const link of ["javascript:alert(1)", "file:///etc/passwd", "data:text/html,x", "#top", "/x", "tauri://localhost/", ""]) {
      expect(read(link), link).toBeUndefined();
    }
  });

  it("shows letters that pass for others as what they are", () => {
    expect(read("https://аpple.com/")).toMatchObject({ name: "xn--pple-43d.com", foreign: true });
    expect(read("https://apple.com/xn--path")).toMatchObject({ foreign: false });
  });

  it("is led by its host, whatever stands before an @", () => {
    expect(read("https://example.com@evil.example/")).toMatchObject({ name: "evil.example" });
  });

  it("whose text names another site says so", () => {
    const promised = (link: string, text: string) => read(link, text)?.promised;
    expect(promised("https://evil.example/", "https://bank.com/login")).toBe("bank.com");
    expect(promised("https://evil.example/", "www.bank.example")).toBe("bank.example");
    expect(promised("https://evil.example/", "Bank.com")).toBe("bank.com");
    expect(promised("https://bank.com.evil.example/", "bank.com")).toBe("bank.com");
    expect(promised("https://evilbank.com/", "bank.com")).toBe("bank.com");
    for (const [link, text] of [
      ["https://docs.bank.com/", "bank.com"],
      ["https://www.bank.com/", "https://bank.com"],
      ["https://github.com/x/y/blob/main/README.md", "README.md"],
      ["https://example.com/", "the documentation"],
    ] as const) {
      expect(promised(link, text), text).toBe("");
    }
  });
});

describe("links", () => {
  it("ask before they open", async () => {
    links.ask("https://example.com/a");
    expect(links.asked?.href).toBe("https://example.com/a");
    expect(opened).toEqual([]);
    await links.open(false);
    expect(opened).toEqual([["open_link", { url: "https://example.com/a" }]]);
    expect(links.asked).toBeUndefined();
    links.ask("https://example.com/b");
    expect(opened.length).toBe(1);
    links.close();
    await links.open(true);
    expect(opened.length).toBe(1);
  });

  it("of a site that was allowed open at once, until it is asked again", async () => {
    links.ask("https://example.com/a");
    await links.open(true);
    links.ask("https://example.com/b");
    await expect.poll(() => opened.length).toBe(2);
    expect(links.asked).toBeUndefined();
    // Neither another port nor another scheme nor a name like it is the same site.
    for (const other of ["http://example.com/", "https://example.com:444/", "https://example.com.evil.example/"]) {
      links.ask(other);
      expect(links.asked?.href).toBe(other);
    }
    links.distrust("https://example.com");
    links.ask("https://example.com/c");
    expect(links.asked?.href).toBe("https://example.com/c");
    expect(opened.length).toBe(2);
  });

  it("that do not open say why", async () => {
    refuses = true;
    links.ask("https://example.com/");
    await links.open(false);
    expect(links.problem).toBe("There is no browser");
    expect(links.asked).toBeDefined();
  });

  it("survive a list of sites that somebody else wrote", () => {
    for (const kept of ["{", "7", '{"a":1}', "[1,null]"]) {
      localStorage.setItem("trusted-sites", kept);
      expect(links.trusts("https://example.com")).toBe(false);
    }
  });
});
