/** The pages' requests to the node about machines, sharing and models. */

import { api } from "./api";
import type * as given from "./bindings";

// Fields that another version's reply may lack; this window's own node sends them.
export type ModelOnDisk = Required<given.ModelOnDisk>;
export type PlannedStage = Required<given.PlannedStage>;
export type PlanView = Required<Omit<given.PlanView, "stages" | "because">> & Pick<given.PlanView, "because"> & { stages: PlannedStage[] };
export type FitView = Required<given.FitView>;
export type CatalogueVariant = Required<Omit<given.CatalogueVariant, "fits">> & { fits: FitView[] };
export type CatalogueModel = Required<Omit<given.CatalogueModel, "variants">> & { variants: CatalogueVariant[] };
export type CatalogueView = Required<Omit<given.CatalogueView, "models">> & { models: CatalogueModel[] };

/** Which tokens there are for downloads. */
export type HubToken = {
  /** Whether HiveMind was given one. */
  stored: boolean;
  /** Whether the environment has one. */
  in_environment: boolean;
};

/** What the log records: about a machine, or about this one. */
export type Happened = {
  machine?: { name: string; fingerprint: string };
  /** How often it happened. */
  count?: number;
} & (
  | { event: "started"; version: string }
  | { event: "pairing_asked"; by_them: boolean; invited: boolean; code: string }
  | { event: "approved"; code: string }
  | { event: "pairing_ended"; how: "denied_here" | "denied_there" | "timed_out" | "broke_off" | "not_kept" }
  | { event: "name_taken"; approved: string }
  | { event: "stopped" }
  | { event: "removed" }
  | { event: "restored" }
  | { event: "blocked" }
  | { event: "renamed"; name: string }
  | { event: "invited"; valid_for_s: number }
  | { event: "rights_changed"; memory: boolean; prompts: boolean; memory_limit_bytes?: number | null; session_limit?: number | null }
  | { event: "admin_action"; program: string; action: string }
  | { event: "loaded"; model: string; layers: [number, number]; bytes: number; standby: boolean }
  | { event: "freed"; model: string; layers: [number, number] }
  | { event: "used"; sessions: number; tokens: number; seconds: number }
  | { event: "refused"; asked: "pairing" | "load" | "connect" | "session" | "hand_over" | "other"; why: "not_sharing" | "no_room" | "not_allowed" | "not_possible" | "too_many" | "invitation" }
  | { event: "left_out"; entries: number }
  | { event: "lost"; entries: number }
);

/** A line of the log. */
export type LogLine = Partial<Happened> & {
  /** Time in UTC, in RFC 3339 format. */
  at: string;
  /** What happened, in words. */
  text: string;
};

/** Maximum number of lines shown; `hivemind log` shows all. */
const SHOWN_LINES = 200;

const peer = (id: string, what: string): string => `/peers/${encodeURIComponent(id)}/${what}`;

const query = (values: Record<string, string | null>): string => {
  const given = Object.entries(values).filter((entry): entry is [string, string] => entry[1] !== null);
  return given.length > 0 ? `?${new URLSearchParams(given).toString()}` : "";
};

/** Changes the sharing; throws if the change was not saved. */
async function sharing(change: { share: boolean } | { pause_minutes: number } | { memory_bytes: number | null }): Promise<void> {
  const { not_kept } = await api.post<{ not_kept?: string }>("/sharing", change);
  // As a refusal is: an object, not an Error.
  // eslint-disable-next-line @typescript-eslint/only-throw-error
  if (not_kept) throw { code: "not_saved", message: not_kept, hint: null };
}

export const node = {
  share: (on: boolean) => sharing({ share: on }),
  /** Pauses sharing; 0 ends the pause. */
  pause: (minutes: number) => sharing({ pause_minutes: minutes }),
  /** Limits the shared memory; null restores the limit of the settings. */
  giveMemory: (bytes: number | null) => sharing({ memory_bytes: bytes }),

  /** Asks a machine to pair; returns the code that both machines show. */
  pair: async (id: string) => (await api.post<{ code: string }>(peer(id, "pair"))).code,
  approve: (id: string, code: string) => api.post(peer(id, "approve"), { code }),
  deny: (id: string) => api.post(peer(id, "deny")),
  remove: (id: string) => api.post(peer(id, "remove")),
  /** Undoes a removal: the machine is approved again, with its name and its rights. */
  restore: (id: string) => api.post(peer(id, "restore")),
  rename: (id: string, name: string) => api.post(peer(id, "rename"), { name }),
  allow: (id: string, memory: boolean, prompts: boolean) => api.post(peer(id, "rights"), { memory, prompts }),
  /** Creates an invitation for a machine on another network. */
  invite: async () => (await api.post<{ ticket: string }>("/invites", {})).ticket,
  /** Joins a swarm by invitation; returns the code that both machines show. */
  join: async (ticket: string) => (await api.post<{ code: string }>("/join", { ticket })).code,
  /** The log of one machine, or with null of all; newest lines first. */
  log: async (machine: string | null): Promise<LogLine[]> => {
    const { entries } = await api.get<{ entries: LogLine[] }>(`/log${query({ machine, last: String(SHOWN_LINES) })}`);
    return entries.reverse();
  },

  models: () => api.get<ModelOnDisk[]>("/models"),
  /** The models that could be fetched and match these words, the best match first. */
  catalogue: (search: string) => api.get<CatalogueView>(`/catalogue${query({ search: search || null })}`),
  loadModel: (model: string) => api.post("/models/load", { model }),
  /** Pauses a download; loading the model resumes it. */
  pauseDownload: (model: string) => api.post("/models/pause", { model }),
  /** Which tokens there are for downloads; none is ever told. */
  hubToken: () => api.get<HubToken>("/hub-token"),
  setHubToken: (token: string) => api.put("/hub-token", { token }),
  forgetHubToken: () => api.delete("/hub-token"),
  unloadModel: (model: string) => api.post("/models/unload", { model }),
  /** Whether a model stays in memory once it is loaded, and on the disk. */
  pin: (model: string, on: boolean) => api.post(on ? "/models/pin" : "/models/unpin", { model }),
  removeModel: (model: string) => api.delete(`/models${query({ model })}`),
  /** Plans a model's placement without loading it. */
  plan: (model: string | null) => api.get<PlanView>(`/plan${query({ model })}`),
};
