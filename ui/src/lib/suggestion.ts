/** The model that is offered to a person who has none yet. */

import type { CatalogueModel, CatalogueVariant } from "./node";

/** Whoever waits longer for words, in tokens per second, does not come back. */
const SLOW = 8;
/** A first download takes minutes, not hours, in bytes. */
const LARGE = 20e9;

export type Suggestion = { name: string; variant: CatalogueVariant };

function suits({ bytes, fits }: CatalogueVariant): boolean {
  const rate = fits[0]?.decode_tokens_per_s;
  return bytes <= LARGE && fits[0]?.fit.verdict === "comfortable" && (rate == null || rate >= SLOW);
}

/** The chat model with the most parameters that fits comfortably and is fast enough, in its largest such size. */
export function suggestion(models: CatalogueModel[]): Suggestion | undefined {
  const suited = models
    .filter(({ good_at }) => good_at.includes("chat"))
    .map(({ name, parameters, variants }) => ({ name, parameters, variant: variants.filter(suits).sort((a, b) => b.bytes - a.bytes)[0] }));
  const [best] = suited.filter(({ variant }) => variant).sort((a, b) => b.parameters - a.parameters);
  return best?.variant && { name: best.name, variant: best.variant };
}
