/** Unsaved changes of pages that were left. */

import type { Preferences } from "./bindings";

export const unsaved: { settings?: Preferences } = {};
