import { describe, expect, it } from "vitest";

import type { Fit } from "./bindings";
import type { CatalogueModel } from "./node";
import { suggestion } from "./suggestion";

type Size = { model: string; bytes: number; verdict?: Fit["verdict"]; rate?: number };

const model = (name: string, parameters: number, sizes: Size[], good_at = ["chat"]): CatalogueModel => ({
  name,
  family: "qwen3",
  parameters,
  active_parameters: null,
  context: 40_960,
  licence: "Apache-2.0",
  good_at,
  tools: false,
  thinking: false,
  images: false,
  variants: sizes.map(({ model, bytes, verdict = "comfortable", rate }) => ({
    model,
    quantization: "4-bit",
    bits_per_weight: 4.5,
    bytes,
    approximate: false,
    on_disk: false,
    loaded: false,
    fits: [{ context: 4096, fit: { verdict } as Fit, machines: [], room_tokens: 8000, decode_tokens_per_s: rate ?? null }],
  })),
});

const offered = (...models: CatalogueModel[]) => suggestion(models)?.variant.model;

describe("the model that is offered first", () => {
  it("is the one with the most parameters that fits comfortably, in its largest size", () => {
    const small = model("Small", 1e9, [{ model: "small", bytes: 1e9 }]);
    const large = model("Large", 8e9, [
      { model: "large-4bit", bytes: 4.6e9 },
      { model: "large-6bit", bytes: 6.6e9 },
      { model: "large-8bit", bytes: 8.6e9, verdict: "snug" },
    ]);
    expect(offered(small, large)).toBe("large-6bit");
    expect(offered(small, model("Huge", 70e9, [{ model: "huge", bytes: 40e9 }]))).toBe("small");
  });

  it("answers at a good pace, as far as that is known", () => {
    const slow = model("Slow", 14e9, [{ model: "slow", bytes: 8e9, rate: 3 }]);
    const quick = model("Quick", 4e9, [{ model: "quick", bytes: 2e9, rate: 30 }]);
    expect(offered(slow, quick)).toBe("quick");
    expect(offered(slow)).toBeUndefined();
  });

  it("is made for chatting", () => {
    expect(offered(model("Coder", 30e9, [{ model: "coder", bytes: 17e9 }], ["code"]))).toBeUndefined();
    expect(offered()).toBeUndefined();
  });
});
