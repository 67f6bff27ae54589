/** Which keys a person presses, by platform. */

/** Whether this is a Mac, where ⌘ takes the part of Ctrl. */
export const mac = (): boolean => navigator.userAgent.includes("Macintosh");

/** Whether the key for shortcuts is held, and no other that changes its meaning. */
export function command(event: KeyboardEvent): boolean {
  const [held, other] = mac() ? [event.metaKey, event.ctrlKey] : [event.ctrlKey, event.metaKey];
  return held && !other && !event.altKey;
}

/** Whether a key belongs to an input method, which is composing a word. */
export const composing = (event: KeyboardEvent): boolean => event.isComposing || event.keyCode === 229;
