/** Requests of pages to the node, as tests name and answer them. */

export type Given = Record<string, unknown>;

/** A request by its method and path, such as "POST /peers/two/pair", and what it was given: its body, or its query. */
export function named({ method, path, body }: { method: string; path: string; body: string | null }): [string, Given] {
  const [place = "", query = ""] = path.replace("/hive/v1", "").split("?");
  const given = body === null ? Object.fromEntries(new URLSearchParams(query)) : (JSON.parse(body) as Given);
  return [`${method} ${place}`, given];
}
