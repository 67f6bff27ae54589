import { describe, expect, it } from "vitest";

import { age, gigabytes, layers, milliseconds, rate } from "./words";

describe("numbers as people read them", () => {
  it("have one decimal and a unit", () => {
    expect([gigabytes(4_100_000_000), gigabytes(268_435_456)]).toEqual(["4.1 GB", "268 MB"]);
    expect([milliseconds(0.34), milliseconds(41.7)]).toEqual(["0.3 ms", "42 ms"]);
    expect([rate(9_400_000_000), rate(94_000_000)]).toEqual(["9.4 Gbit/s", "94 Mbit/s"]);
  });

  it("count layers from one", () => {
    expect([layers([[0, 18]]), layers([[29, 30]])]).toEqual(["layers 1–18", "layer 30"]);
    expect(layers([[0, 4], [9, 10]])).toBe("layers 1–4, 10");
  });
});

describe("a conversation", () => {

  it("is of today, this week or older", () => {
    const noon = new Date(2026, 10, 24, 12).getTime() / 1000;
    expect([noon - 3600, noon - 86_400, noon - 8 * 86_400].map((at) => age(at, noon))).toEqual(["Today", "This week", "Older"]);
  });
});
