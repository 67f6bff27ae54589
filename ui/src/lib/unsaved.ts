/** What was changed and not saved when a page was left. */

import type { Preferences } from "./bindings";

export const unsaved: { settings?: Preferences } = {};
