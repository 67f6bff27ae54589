/** What jsdom lacks of a browser: nothing is ever resized in it. */

globalThis.ResizeObserver ??= class {
  observe(): void {}
  unobserve(): void {}
  disconnect(): void {}
};
