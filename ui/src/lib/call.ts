/** Calls a command and returns its result, or throws its problem. */

import type { Problem } from "./bindings";
import { words } from "./words";

type Outcome<T> = { status: "ok"; data: T } | { status: "error"; error: Problem };

export async function call<T>(outcome: Promise<Outcome<T>>): Promise<T> {
  const ended = await outcome;
  if (ended.status === "ok") return ended.data;
  throw ended.error;
}

/** The code of a problem, if it has one. */
export function code(problem: unknown): string | undefined {
  return typeof problem === "object" && problem !== null && "code" in problem ? String(problem.code) : undefined;
}

/** What to say about a thrown value: the sentence for its code, its own message, or both. */
export function why(problem: unknown): string {
  if (typeof problem === "object" && problem !== null && "message" in problem) {
    const { code, message, hint } = problem as { code?: string; message: string; hint?: string | null };
    const known = words.problems[code ?? ""];
    if (typeof known === "string") return known;
    const first = message.charAt(0).toUpperCase() + message.slice(1);
    const said = hint ? `${first}. ${hint}` : first;
    return known?.(said) ?? said;
  }
  return String(problem);
}
