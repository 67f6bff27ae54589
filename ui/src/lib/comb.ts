/** Where the machines of the comb stand: a pure function of the room, so that it holds at every size. */

export type Point = { x: number; y: number };
export type Box = { left: number; top: number; width: number; height: number };
export type Line = { from: Point; to: Point };
/** An edge from a machine of the ring to the next. */
export type Edge = Line & { after: number };

/** A machine to be placed. */
export type Piece = {
  /** The share of the largest machine's memory, between 0 and 1; gives the size. */
  weight: number;
  /** The lines of its label. */
  texts: string[];
};

/** A placed machine: the centre and radius of its hexagon, and its label. */
export type Placed = Point & { radius: number; label: Box; above: boolean };

/** A placed comb. `height` is the least that it needs at this width. */
export type Comb = { height: number; ring: Placed[]; rest: Placed[]; edges: Edge[] };

/** Height of a line of text, and the width of an average letter, generously: text is 13 px at every size. */
const LINE = 18;
const LETTER = 7.4;
/** Maximum lines of one text of a label; longer ones end with an ellipsis (`Comb.svelte`). */
const MOST_LINES = 3;
const WIDEST_LABEL = 220;
/** The narrowest cell in which names are readable. */
const NARROWEST = 92;
/** How much of an edge is seen on either side of its label. */
const SEEN = 6;
/** Between a hexagon and its label, and between a block and the next. */
const NEAR = 6;
const FAR = 20;
const SMALLEST = 24;
const LARGEST = 180;
/** The room that the label of an edge takes; hexagons grow beyond this radius only where it is left free. */
const LINK = { width: 150, height: 56 };
const WITH_LINKS = 64;
/** Radius of machines outside the ring. */
const RESTING = 22;

/** Numbers of machines in the first row, in rows with one at either side, and in the last row. */
type Rows = { first: number; sides: number; last: number };

/** Lines that a text takes at a width, broken between words. */
function linesOf(text: string, width: number): number {
  const most = Math.max(1, Math.floor(width / LETTER));
  let [lines, used] = [1, 0];
  for (const word of text.split(" ")) {
    const needed = used === 0 ? word.length : used + 1 + word.length;
    if (needed <= most) {
      used = needed;
    } else {
      lines += used === 0 ? Math.ceil(word.length / most) - 1 : Math.ceil(word.length / most);
      used = word.length % most;
    }
  }
  return Math.min(MOST_LINES, lines);
}

function labelHeight({ texts }: Piece, width: number): number {
  return texts.reduce((sum, text) => sum + linesOf(text, width), 0) * LINE;
}

const labelWidth = (cell: number): number => Math.min(cell - 8, WIDEST_LABEL);

/** The ways to stand in a ring: rows of which the middle ones have a machine at either side. */
function ways(count: number): Rows[] {
  if (count === 1) return [{ first: 0, sides: 0, last: 1 }];
  if (count === 2) return [{ first: 0, sides: 0, last: 2 }, { first: 1, sides: 0, last: 1 }];
  const most = Math.floor((count - 2) / 2);
  return Array.from({ length: most + 1 }, (_, sides) => {
    const ends = count - 2 * sides;
    return { first: Math.floor(ends / 2), sides, last: Math.ceil(ends / 2) };
  });
}

const columnsOf = ({ first, sides, last }: Rows): number => Math.max(first, last, sides > 0 ? 2 : 1);
const rowsOf = ({ first, sides }: Rows): number => (first > 0 ? 1 : 0) + sides + 1;

/** A ring's measures in a room: of a cell, of its tallest label, and of its largest hexagon. */
function measures(pieces: Piece[], rows: Rows, width: number, height: number) {
  const cell = { width: width / columnsOf(rows), height: height / rowsOf(rows) };
  const label = Math.max(...pieces.map((piece) => labelHeight(piece, labelWidth(cell.width))));
  const within = (beside: number, below: number): number =>
    Math.min((cell.width - beside) / Math.sqrt(3), (cell.height - label - NEAR - below) / 2, LARGEST);
  const tight = within(FAR, FAR);
  const free = within(columnsOf(rows) > 1 ? LINK.width : FAR, rowsOf(rows) > 1 ? LINK.height : FAR);
  const radius = Math.max(free, Math.min(tight, WITH_LINKS));
  return { rows, cell, label, radius, least: rowsOf(rows) * (2 * SMALLEST + NEAR + FAR + label) };
}

function place(piece: Piece, at: Point, largest: number, label: { width: number; height: number }, above: boolean): Placed {
  const height = labelHeight(piece, label.width);
  const top = above ? at.y - largest - NEAR - height : at.y + largest + NEAR;
  return {
    ...at,
    radius: largest * (0.6 + 0.4 * Math.sqrt(piece.weight)),
    label: { left: at.x - label.width / 2, top, width: label.width, height },
    above,
  };
}

/** The ring, clockwise from the first row. */
function placeRing(pieces: Piece[], found: ReturnType<typeof measures>, width: number): Placed[] {
  const { rows, cell, label, radius } = found;
  const total = rowsOf(rows);
  const at = (row: number, x: number): Point & { above: boolean } => {
    // Labels of the first row are above it, so that every edge stays within the ring.
    const above = row === 0 && total > 1;
    const top = row * cell.height + (cell.height - 2 * radius - NEAR - label) / 2;
    return { x, y: top + radius + (above ? label + NEAR : 0), above };
  };
  const across = (row: number, count: number) =>
    Array.from({ length: count }, (_, index) => at(row, width / 2 + (index - (count - 1) / 2) * cell.width));
  const sides = Array.from({ length: rows.sides }, (_, index) => (rows.first > 0 ? 1 : 0) + index);
  const slots = [
    ...across(0, rows.first),
    ...sides.map((row) => at(row, width - cell.width / 2)),
    ...across(total - 1, rows.last).reverse(),
    ...[...sides].reverse().map((row) => at(row, cell.width / 2)),
  ];
  // Two beside each other read from the left.
  const ordered = total === 1 ? slots.reverse() : slots;
  const size = { width: labelWidth(cell.width), height: label };
  return pieces.map((piece, index) => place(piece, ordered[index]!, radius, size, ordered[index]!.above));
}

/** Machines outside the ring, in rows below it. */
function placeRest(pieces: Piece[], width: number, top: number): { placed: Placed[]; height: number } {
  if (pieces.length === 0) return { placed: [], height: 0 };
  const columns = Math.max(1, Math.min(pieces.length, Math.floor(width / 120)));
  const cell = Math.min(width / columns, 200);
  const label = { width: labelWidth(cell), height: 0 };
  label.height = Math.max(...pieces.map((piece) => labelHeight(piece, label.width)));
  const row = 2 * RESTING + NEAR + label.height + FAR;
  const placed = pieces.map((piece, index) => {
    const [line, column] = [Math.floor(index / columns), index % columns];
    const inLine = Math.min(columns, pieces.length - line * columns);
    const x = width / 2 + (column - (inLine - 1) / 2) * cell;
    return place(piece, { x, y: top + line * row + FAR / 2 + RESTING }, RESTING, label, false);
  });
  return { placed, height: Math.ceil(pieces.length / columns) * row };
}

/** The distance from the middle of a hexagon that stands on a point to its rim, in a direction. */
function rim(radius: number, angle: number): number {
  const facing = Array.from({ length: 6 }, (_, side) => Math.cos(angle - (Math.PI / 3) * side));
  return (radius * Math.sqrt(0.75)) / Math.max(...facing);
}

/** Where a line from a machine leaves its hexagon and its label, as a fraction of the line. */
function leaves(from: Placed, to: Point): number {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const round = (rim(from.radius, Math.atan2(dy, dx)) + 4) / Math.hypot(dx, dy);
  const { left, top, width, height } = from.label;
  const enter = (low: number, high: number, delta: number): [number, number] =>
    delta === 0 ? (low <= 0 && high >= 0 ? [0, Infinity] : [1, 0]) : low / delta < high / delta ? [low / delta, high / delta] : [high / delta, low / delta];
  const across = enter(left - 4 - from.x, left + width + 4 - from.x, dx);
  const down = enter(top - 2 - from.y, top + height + 2 - from.y, dy);
  const [inside, outside] = [Math.max(across[0], down[0], 0), Math.min(across[1], down[1])];
  return inside < outside ? Math.max(round, outside) : round;
}

/** The visible line from a machine to the next: neither on their hexagons nor on their labels. */
function edge(ring: Placed[], after: number): Edge[] {
  const [one, other] = [ring[after]!, ring[(after + 1) % ring.length]!];
  const [start, end] = [leaves(one, other), 1 - leaves(other, one)];
  const at = (part: number): Point => ({ x: one.x + (other.x - one.x) * part, y: one.y + (other.y - one.y) * part });
  return start < end ? [{ from: at(start), to: at(end), after }] : [];
}

/** Places the machines of the ring, in its order, and the rest below them. */
export function comb(ring: Piece[], rest: Piece[], width: number, height: number): Comb {
  const below = placeRest(rest, width, 0).height;
  const fits = ways(ring.length).filter((rows) => width / columnsOf(rows) >= NARROWEST);
  const possible = fits.length > 0 ? fits : ways(ring.length).sort((a, b) => columnsOf(a) - columnsOf(b)).slice(0, 1);
  const least = Math.min(...possible.map((rows) => measures(ring, rows, width, 0).least));
  const room = Math.max(height - below, least);
  const measured = possible.map((rows) => measures(ring, rows, width, room));
  const spread = ({ cell }: (typeof measured)[number]) => Math.min(cell.width, cell.height);
  const best = measured.reduce((best, next) => {
    const larger = next.radius - best.radius;
    return larger > 0.5 || (larger > -0.5 && spread(next) > spread(best)) ? next : best;
  });
  const placed = placeRing(ring, best, width);
  // Two machines have one edge, not two; one has none.
  const edges = placed.slice(0, placed.length > 2 ? undefined : placed.length - 1).flatMap((_, index) => edge(placed, index));
  return { height: least + below, ring: placed, rest: placeRest(rest, width, room).placed, edges };
}

/** A box of this size in the middle of a line, if it is on nothing else there; `taken` are other such boxes. */
export function roomOn({ from, to }: Line, size: { width: number; height: number }, placed: Placed[], taken: Box[], within: { width: number; height: number }): Box | undefined {
  const [x, y] = [(from.x + to.x) / 2, (from.y + to.y) / 2];
  const [across, down] = [Math.abs(to.x - from.x), Math.abs(to.y - from.y)];
  // The line is seen on both sides of its label.
  if (across < size.width + 2 * SEEN && down < size.height + 2 * SEEN) return undefined;
  const box = { left: x - size.width / 2, top: y - size.height / 2, ...size };
  const hexagons = placed.map(({ x, y, radius }) => ({ left: x - radius, top: y - radius, width: 2 * radius, height: 2 * radius }));
  const inside = box.left >= 0 && box.top >= 0 && box.left + box.width <= within.width && box.top + box.height <= within.height;
  return inside && ![...hexagons, ...placed.map(({ label }) => label), ...taken].some((other) => meet(box, other)) ? box : undefined;
}

/** Whether two boxes overlap. */
export function meet(one: Box, other: Box): boolean {
  return (
    one.left < other.left + other.width &&
    other.left < one.left + one.width &&
    one.top < other.top + other.height &&
    other.top < one.top + one.height
  );
}

/** Whether a text fits on one line of this width. */
export const fits = (text: string, width: number): boolean => text.length * LETTER <= width;

/** The size of a label on an edge. */
export function textSize(texts: string[]): { width: number; height: number } {
  return { width: Math.max(...texts.map((text) => text.length)) * LETTER + 12, height: texts.length * LINE };
}

/** The corners of a hexagon that stands on a point. */
export function hexagon({ x, y }: Point, radius: number): string {
  const corner = (index: number): string => {
    const angle = (Math.PI / 3) * index - Math.PI / 2;
    return `${(x + radius * Math.cos(angle)).toFixed(1)},${(y + radius * Math.sin(angle)).toFixed(1)}`;
  };
  return Array.from({ length: 6 }, (_, index) => corner(index)).join(" ");
}
