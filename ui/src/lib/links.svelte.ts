/** Links ask once before they open in the browser, since a model may have written them. */

import { commands } from "./bindings";
import { call, why } from "./call";
import { inApp } from "./place";

/** Local storage key of the sites that open without a question. */
const TRUSTED = "trusted-sites";

/** Text that a reader takes for an address: with a scheme, with "www.", or with a common ending. */
const ADDRESS = /^(?:https?:\/\/|www\.)?((?:[a-z0-9-]+\.)+[a-z]{2,})(?=[/:?#]|$)/i;
const COMMON = /^(?:https?:\/\/|www\.)|\.(?:com|org|net|edu|gov|io|dev|app|eu|de|uk)(?=[/:?#]|$)/i;

/** A link as the dialog shows it. */
export type Link = {
  /** As it is opened. */
  href: string;
  /** The site, or the mail address. Other scripts are in punycode, so that no letter passes for another. */
  name: string;
  mail: boolean;
  /** The origin that can be trusted: scheme, host and port. */
  site: string;
  /** Whether the site's name has letters of other scripts. */
  foreign: boolean;
  /** The site that the link's text promises, if it leads to another. */
  promised: string;
};

/** Reads a link; undefined if it is not for a browser or a mail program. */
export function read(link: string, text = ""): Link | undefined {
  if (!URL.canParse(link)) return undefined;
  const url = new URL(link);
  if (url.protocol === "mailto:") {
    return { href: url.href, name: url.pathname, mail: true, site: "", foreign: false, promised: "" };
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") return undefined;
  const foreign = url.hostname.split(".").some((label) => label.startsWith("xn--"));
  return { href: url.href, name: url.host, mail: false, site: url.origin, foreign, promised: promised(text, url.hostname) };
}

function promised(text: string, host: string): string {
  const said = text.trim();
  const site = ADDRESS.exec(said)?.[1]?.toLowerCase();
  if (!site || !COMMON.test(said)) return "";
  const bare = (name: string) => name.replace(/^www\./, "");
  return bare(host) === bare(site) || host.endsWith(`.${bare(site)}`) ? "" : site;
}

function trusted(): string[] {
  try {
    const kept = JSON.parse(localStorage.getItem(TRUSTED) ?? "[]") as unknown[];
    return kept.filter((site) => typeof site === "string");
  } catch {
    // Somebody else wrote it.
    return [];
  }
}

class Links {
  /** The link that waits for an answer. */
  asked = $state<Link>();
  /** Why it could not be opened. */
  problem = $state("");

  /** Asks whether to open a link; `text` is its label. A site that is trusted opens at once. */
  ask(link: string, text = ""): void {
    const found = read(link, text);
    if (!found) return;
    this.problem = "";
    this.asked = found;
    if (this.trusts(found.site)) void this.open(false);
  }

  /** Opens the link, and its site without a question from now on if `always`. */
  async open(always: boolean): Promise<void> {
    const link = this.asked;
    if (!link) return;
    if (always && link.site) localStorage.setItem(TRUSTED, JSON.stringify([...new Set([...trusted(), link.site])]));
    try {
      if (inApp()) await call(commands.openLink(link.href));
      else open(link.href, "_blank", "noopener,noreferrer");
      if (this.asked === link) this.asked = undefined;
    } catch (thrown) {
      this.problem = why(thrown);
    }
  }

  close(): void {
    this.asked = undefined;
    this.problem = "";
  }

  /** Whether a site opens without a question. */
  trusts(site: string): boolean {
    return site !== "" && trusted().includes(site);
  }

  /** Asks again before a site is opened. */
  distrust(site: string): void {
    localStorage.setItem(TRUSTED, JSON.stringify(trusted().filter((kept) => kept !== site)));
  }
}

export const links = new Links();
