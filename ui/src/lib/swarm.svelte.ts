/** The node's latest snapshot, and the generation speed over the last minute. */

import { Channel } from "@tauri-apps/api/core";

import { api } from "./api";
import { type Language, type Snapshot, commands } from "./bindings";
import { call } from "./call";
import { inApp } from "./place";

const MINUTE = 60;

class Swarm {
  shown = $state<Snapshot>();
  /** Tokens generated in each of the last 60 seconds, newest last. */
  speeds = $state<number[]>(Array.from({ length: MINUTE }, () => 0));

  #counted: { at: number; tokens: number } | undefined;

  /** Follows the node; `language` is for browsers, since the app knows its own. */
  watch(language?: Language): void {
    const take = (shown: Snapshot) => {
      this.#count(shown.answered_tokens, performance.now() / 1000);
      this.shown = shown;
    };
    if (!inApp()) {
      void api.follow("view", `/view?language=${language}`, take);
      return;
    }
    const snapshots = new Channel<Snapshot>();
    snapshots.onmessage = take;
    void call(commands.watch(snapshots));
  }

  #count(tokens: number, now: number): void {
    const before = this.#counted;
    if (before && now - before.at < 0.9) return;
    if (before) {
      const seconds = Math.max(1, Math.round(now - before.at));
      const each = (tokens - before.tokens) / (now - before.at);
      const news = Array.from({ length: Math.min(seconds, MINUTE) }, () => each);
      this.speeds = [...this.speeds, ...news].slice(-MINUTE);
    }
    this.#counted = { at: now, tokens };
  }
}

export const swarm = new Swarm();
