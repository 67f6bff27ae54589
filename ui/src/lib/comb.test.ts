import { describe, expect, it } from "vitest";

import { type Box, type Comb, type Line, type Piece, type Placed, comb, meet, roomOn, textSize } from "./comb";
import { cells } from "./cells";

const NAMES = ["This machine", "Attic", "Kitchen Mac mini", "MacBook Pro (Anna)", "Rack 1", "Workshop with a rather long name", "Old iMac"];
const pieces = (count: number): Piece[] =>
  Array.from({ length: count }, (_, index) => ({ weight: (index % 4) / 3, texts: [NAMES[index % NAMES.length]!, "22.4 GB · layers 1–18"] }));

/** The comb's room in windows from 320 × 480 to 2560 × 1440. */
const ROOMS: [number, number][] = [[212, 300], [292, 330], [404, 360], [560, 560], [1400, 900], [2050, 1300]];
const COUNTS: [number, number][] = [[1, 0], [2, 0], [3, 0], [5, 0], [12, 0], [1, 1], [2, 1], [2, 10], [1, 11], [6, 6], [7, 0]];

const box = ({ x, y, radius }: Placed): Box => ({ left: x - radius * 0.87, top: y - radius, width: radius * 1.73, height: 2 * radius });

function cross({ from, to }: Line, { left, top, width, height }: Box): boolean {
  // In steps finer than any label.
  return Array.from({ length: 200 }, (_, step) => (step + 0.5) / 200).some((part) => {
    const [x, y] = [from.x + (to.x - from.x) * part, from.y + (to.y - from.y) * part];
    return x > left && x < left + width && y > top && y < top + height;
  });
}

/** The circle within a hexagon, for lines that pass a corner of its box. */
const near = ({ from, to }: Line, { x, y, radius }: Placed): boolean => {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const part = Math.min(1, Math.max(0, ((x - from.x) * dx + (y - from.y) * dy) / (dx * dx + dy * dy)));
  return Math.hypot(from.x + dx * part - x, from.y + dy * part - y) < radius * 0.86;
};

const rooms = ROOMS.flatMap((room) => COUNTS.map((count) => [...count, ...room] as const));

describe.each(rooms)("%i in the ring and %i beside it in %i × %i", (count, others, width, height) => {
  const made: Comb = comb(pieces(count), pieces(others), width, height);
  const all = [...made.ring, ...made.rest];
  const room = { left: -0.01, top: -0.01, width: width + 0.02, height: Math.max(height, made.height) + 0.02 };
  const inside = (part: Box): boolean =>
    part.left >= room.left && part.top >= room.top && part.left + part.width <= room.left + room.width && part.top + part.height <= room.top + room.height;

  it("stand in the room, with every label", () => {
    expect(all.length).toBe(count + others);
    for (const placed of all) expect([placed, inside(box(placed)), inside(placed.label)]).toEqual([placed, true, true]);
  });

  it("cover nobody else", () => {
    const boxes = all.flatMap((placed) => [box(placed), placed.label]);
    const overlaps = boxes.flatMap((one, index) => boxes.slice(index + 1).filter((other) => meet(one, other)));
    expect(overlaps).toEqual([]);
  });

  it("are joined from each to the next, and by no line through anything", () => {
    expect(made.edges.map(({ after }) => after)).toEqual(Array.from({ length: count > 2 ? count : count - 1 }, (_, index) => index));
    for (const edge of made.edges) {
      expect(all.filter((placed) => cross(edge, placed.label) || near(edge, placed))).toEqual([]);
    }
  });

  it("are large enough to see, and need the same height whatever they are given", () => {
    for (const { radius } of made.ring) expect(radius).toBeGreaterThan(14);
    expect(comb(pieces(count), pieces(others), width, 0).height).toBe(made.height);
  });
});

describe("a comb", () => {
  it("grows with its room", () => {
    const radius = (width: number, height: number): number => comb(pieces(3), [], width, height).ring[0]!.radius;
    expect(radius(1400, 900)).toBeGreaterThan(1.5 * radius(560, 560));
    expect(radius(560, 560)).toBeGreaterThan(radius(292, 330));
  });

  it("has its labels outside the ring", () => {
    const { ring } = comb(pieces(5), [], 900, 600);
    const middle = ring.reduce((sum, { y }) => sum + y, 0) / ring.length;
    for (const { y, label } of ring) expect(label.top < y).toBe(y < middle);
  });

  it("shows memory as size", () => {
    const [small, large] = comb([{ weight: 0.25, texts: ["a"] }, { weight: 1, texts: ["b"] }], [], 500, 300).ring;
    expect(small!.radius / large!.radius).toBeCloseTo(0.8);
  });

  it("labels an edge only where there is room", () => {
    const wide = comb(pieces(2), [], 900, 300);
    const label = textSize(["Thunderbolt 0.3 ms"]);
    expect(roomOn(wide.edges[0]!, label, wide.ring, [], { width: 900, height: 300 })).toBeTruthy();
    const narrow = comb(pieces(3), [], 240, 300);
    expect(roomOn(narrow.edges[1]!, label, narrow.ring, [], { width: 240, height: 300 })).toBeUndefined();
    const found = roomOn(wide.edges[0]!, label, wide.ring, [], { width: 900, height: 300 })!;
    expect(roomOn(wide.edges[0]!, label, wide.ring, [found], { width: 900, height: 300 })).toBeUndefined();
    const beside = { from: { x: 20, y: 10 }, to: { x: 20, y: 290 } };
    expect(roomOn(beside, label, [], [], { width: 240, height: 300 })).toBeUndefined();
    expect(roomOn(beside, { width: 30, height: 18 }, [], [], { width: 240, height: 300 })).toBeTruthy();
  });
});

describe("the cells of a machine", () => {
  const count = (path: string): number => path.split("Z").length - 1;

  it("are as many as the model has layers, and full for those it holds", () => {
    for (const [layers, held] of [[1, 1], [30, 18], [37, 0], [80, 80]] as const) {
      const { full, empty } = cells(50, layers, held);
      expect([count(full), count(empty)]).toEqual([held, layers - held]);
    }
  });

  it("stay within the hexagon", () => {
    for (const layers of [1, 7, 30, 61, 80]) {
      const { full } = cells(50, layers, layers);
      for (const [, x, y] of full.matchAll(/(-?[\d.]+) (-?[\d.]+)/g)) {
        expect(Math.abs(Number(x))).toBeLessThanOrEqual(50 * 0.8661);
        expect(Math.abs(Number(x)) / Math.sqrt(3) + Math.abs(Number(y))).toBeLessThanOrEqual(50.1);
      }
    }
  });
});
