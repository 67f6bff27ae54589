/** What the node says as a value and in English: in the window's language, where that has words for it. */

import type { Reason, Trouble } from "./bindings";
import type { Happened, LogLine, PlanView } from "./node";
import { words } from "./words";

/** Words for each kind of a value. A kind without words is a type error. */
type WordsFor<Value extends { kind: string }> = {
  [Kind in Value["kind"]]: (value: Extract<Value, { kind: Kind }>) => string;
};

/** A language's words for what the node says. */
export type Said = {
  reason: WordsFor<Reason>;
  trouble: WordsFor<Trouble>;
  event: { [Event in Happened["event"]]: (line: Extract<Happened, { event: Event }>) => string };
};

/** What a table says about a value; nothing if it does not know its kind. */
function say<Value>(table: object | undefined, kind: string, value: Value): string | undefined {
  const known = table as Partial<Record<string, (value: Value) => string>> | undefined;
  return known && Object.hasOwn(known, kind) ? known[kind]?.(value) : undefined;
}

/** The reasons of a plan, as sentences. */
export function reasons({ reasons, because }: PlanView): string[] {
  return reasons.map((text, index) => {
    const reason = because?.[index];
    const said = (reason && say(words.said?.reason, reason.kind, reason)) ?? text;
    return said.endsWith(".") ? said : `${said}.`;
  });
}

/** What an answer ran into, by the node's words for it. */
export function troubled({ why, trouble }: { why: string; trouble: Trouble | null }): string {
  return (trouble && say(words.said?.trouble, trouble.kind, trouble)) ?? why;
}

/** A line of the log. */
export function happened(line: LogLine): string {
  return say(words.said?.event, line.event ?? "", line) ?? line.text;
}
