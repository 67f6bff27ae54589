/** Calls a command and returns its result, or throws its problem. */

import type { Problem } from "./bindings";

type Outcome<T> = { status: "ok"; data: T } | { status: "error"; error: Problem };

export async function call<T>(outcome: Promise<Outcome<T>>): Promise<T> {
  const ended = await outcome;
  if (ended.status === "ok") return ended.data;
  throw ended.error;
}

/** The message of a thrown value. */
export function why(problem: unknown): string {
  if (typeof problem === "object" && problem !== null && "message" in problem) {
    const { message, hint } = problem as { message: string; hint?: string | null };
    const said = message.charAt(0).toUpperCase() + message.slice(1);
    return hint ? `${said}. ${hint}` : said;
  }
  return String(problem);
}
