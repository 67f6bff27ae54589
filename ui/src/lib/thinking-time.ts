/** How long models thought, as far as this window has seen it. */

/** Seconds by thought. */
const measured = new Map<string, number>();
const MOST = 200;

/** How long a thought took, in seconds; undefined if nobody measured it. */
export function thinkingTime(thought: string): number | undefined {
  return measured.get(thought);
}

export function measure(thought: string, seconds: number): void {
  if (measured.size >= MOST) measured.clear();
  measured.set(thought, seconds);
}
