/** The tokens of a text that may change, as the tokenizer of the chat's model counts them. */

import { api } from "./api";

/** A text is counted this long after its last letter. */
const PAUSE_MS = 300;

/** While the node reads the tokenizer, the request is repeated after this pause, up to this many times. */
const AGAIN_MS = 2000;
const ATTEMPTS = 5;

/** Counts of the last texts, by model and text: a card that is redrawn does not ask again. */
const REMEMBERED = 32;
const known = new Map<string, number>();

export class TokenCount {
  /** Null until the text is counted; an estimate has to do until then. */
  tokens = $state<number | null>(null);
  /** The model and the text that are shown now. */
  #key = "";
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** One request at a time: a long text takes the tokenizer a while. */
  #asking: Promise<void> = Promise.resolve();

  /** Takes the text as it is now, and the model, null for the one of new chats. Counts it after a pause. */
  watch(text: string, model: string | null, pause = PAUSE_MS): void {
    const key = `${model ?? ""}\n${text}`;
    if (key === this.#key) return;
    this.stop();
    this.#key = key;
    this.tokens = known.get(key) ?? null;
    if (this.tokens === null && text) this.#later(key, text, model, pause, ATTEMPTS);
  }

  /** Counts nothing more. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#key = "";
  }

  #later(key: string, text: string, model: string | null, pause: number, attempts: number): void {
    this.#timer = setTimeout(() => {
      this.#asking = this.#asking.then(() => this.#ask(key, text, model, attempts));
    }, pause);
  }

  async #ask(key: string, text: string, model: string | null, attempts: number): Promise<void> {
    if (key !== this.#key) return;
    try {
      const { tokens } = await api.post<{ tokens: number }>("/models/tokens", { model, text });
      remember(key, tokens);
      // What was typed meanwhile is another text.
      if (key === this.#key) this.tokens = tokens;
    } catch (refused) {
      // The estimate stays, whatever is wrong; asking the model itself says it better.
      const { code } = refused as { code?: string };
      if (code === "tokenizer_not_loaded" && key === this.#key && attempts > 1) this.#later(key, text, model, AGAIN_MS, attempts - 1);
    }
  }
}

function remember(key: string, tokens: number): void {
  const [oldest] = known.keys();
  if (known.size >= REMEMBERED && oldest !== undefined) known.delete(oldest);
  known.set(key, tokens);
}
