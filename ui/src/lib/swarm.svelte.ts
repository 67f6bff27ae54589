/** The node's latest snapshot, and the generation speed over the last minute. */

import { Channel } from "@tauri-apps/api/core";

import { type Snapshot, commands } from "./bindings";
import { call } from "./call";

const MINUTE = 60;

class Swarm {
  shown = $state<Snapshot>();
  /** Tokens generated in each of the last 60 seconds, newest last. */
  speeds = $state<number[]>(Array.from({ length: MINUTE }, () => 0));

  #counted: { at: number; tokens: number } | undefined;

  watch(): void {
    const snapshots = new Channel<Snapshot>();
    snapshots.onmessage = (shown) => {
      this.#count(shown.answered_tokens, performance.now() / 1000);
      this.shown = shown;
    };
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
