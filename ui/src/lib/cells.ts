/** The cells of a machine's hexagon, one for each layer of the model. Those of the layers that it holds are full. */

type Cells = { full: string; empty: string };

/** Gap between two cells, as a part of their size. */
const GAP = 0.14;

/** Rings of cells around the middle one that have room for this many: 1, 7, 19, 37, … */
function ringsFor(count: number): number {
  let rings = 0;
  while (1 + 3 * rings * (rings + 1) < count) rings += 1;
  return rings;
}

/** Paths of full and empty cells around the origin, in a hexagon of this radius that stands on a point. */
export function cells(radius: number, count: number, held: number): Cells {
  const rings = ringsFor(count);
  const size = (radius * Math.sqrt(0.75)) / (1.5 * rings + 1);
  const middles: [number, number][] = [];
  for (let column = -rings; column <= rings; column += 1) {
    const inColumn = 2 * rings + 1 - Math.abs(column);
    for (let row = 0; row < inColumn; row += 1) {
      middles.push([1.5 * size * column, (row - (inColumn - 1) / 2) * Math.sqrt(3) * size]);
    }
  }
  // The lowest fill first; of more cells than layers, the highest are left out.
  const ordered = middles.sort(([x, y], [otherX, otherY]) => otherY - y || Math.abs(x) - Math.abs(otherX)).slice(0, count);
  const drawn = size * (1 - GAP);
  const cell = ([x, y]: [number, number]): string => {
    const corners = Array.from({ length: 6 }, (_, corner) => {
      const angle = (Math.PI / 3) * corner;
      return `${(x + drawn * Math.cos(angle)).toFixed(1)} ${(y + drawn * Math.sin(angle)).toFixed(1)}`;
    });
    return `M${corners.join("L")}Z`;
  };
  const path = (some: [number, number][]): string => some.map(cell).join("");
  return { full: path(ordered.slice(0, held)), empty: path(ordered.slice(held)) };
}
