/** Where the pages are shown: in the app's windows, or in a browser. */

export const inApp = (): boolean => "__TAURI_INTERNALS__" in globalThis;
