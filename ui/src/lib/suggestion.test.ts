import { describe, expect, it } from "vitest";

import { catalogueModel, variant } from "../testing";
import type { Fit } from "./bindings";
import type { CatalogueModel } from "./node";
import { suggestion } from "./suggestion";

type Size = { model: string; bytes: number; fit?: Fit; rate?: number };

const model = (name: string, parameters: number, sizes: Size[], good_at = ["chat"]) => {
  const sized = ({ model, bytes, fit = { verdict: "comfortable" }, rate }: Size) => {
    const made = variant(model, bytes, fit);
    return { ...made, fits: made.fits.map((at) => ({ ...at, decode_tokens_per_s: rate ?? null })) };
  };
  return catalogueModel(name, sizes.map(sized), { parameters, good_at });
};

const offered = (...models: CatalogueModel[]) => suggestion(models)?.variant.model;

describe("the model that is offered first", () => {
  it("is the one with the most parameters that fits comfortably, in its largest size", () => {
    const small = model("Small", 1e9, [{ model: "small", bytes: 1e9 }]);
    const large = model("Large", 8e9, [
      { model: "large-4bit", bytes: 4.6e9 },
      { model: "large-6bit", bytes: 6.6e9 },
      { model: "large-8bit", bytes: 8.6e9, fit: { verdict: "snug", machine: "Attic", left_bytes: 1e9 } },
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
