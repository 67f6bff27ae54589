/** What the node says about plans and machines, in German. */

import { decimal, gigabytes, several, speed, unit } from "./numbers";
import type { Loss } from "./bindings";
import type { Happened } from "./node";
import type { Said } from "./said";

const percent = (value: number | null): string => unit(decimal(value ?? 0), "%");

/** "Mini", "Mini und Studio", "Attic, Mini und Studio" */
const all = (names: string[]): string => names.join(", ").replace(/, ([^,]*)$/, " und $1");

const layers = ([start, end]: [number, number]): string => (end - start === 1 ? `Schicht ${end}` : `Schichten ${start + 1}–${end}`);

function time(seconds: number): string {
  if (seconds < 120) return unit(decimal(seconds), "s");
  return seconds < 7200 ? unit(decimal(Math.floor(seconds / 60)), "min") : unit(decimal(Math.floor(seconds / 3600)), "h");
}

const entries = (count: number): string => several(count, "weiterer Eintrag", "weitere Einträge");

/** The machine that a line is about. */
const name = ({ machine }: Happened): string => machine?.name ?? "Ein Rechner";

/** The same, with the words of its key. */
const known = (line: Happened): string => (line.machine ? `${line.machine.name} (${line.machine.fingerprint})` : name(line));

const ASKED = {
  pairing: "Koppeln",
  load: "Laden von Schichten",
  connect: "Verbinden von Schichten",
  session: "Chat",
  hand_over: "Verschieben von Chats",
  other: "sonstige Anfrage",
};

const REFUSED = {
  not_sharing: "Dieser Rechner gab nichts frei",
  no_room: "Der freigegebene Speicher reichte nicht",
  not_allowed: "Das Recht dazu fehlte",
  not_possible: "Es war nicht möglich",
  too_many: "Zu viele hatten gefragt",
  invitation: "Die Einladung war nicht gültig",
};

const LOST: Record<Loss, string> = {
  left: "ist gegangen",
  stopped_sharing: "gibt nichts mehr frei",
  may_not_see_prompts: "darf Ihre Fragen nicht mehr sehen",
  shares_less: "gibt weniger Speicher frei",
  silent: "antwortet nicht",
  no_progress: "kommt nicht voran",
  wrong_numbers: "hat falsch gerechnet",
  failed: "ist ausgefallen",
};

export const said: Said = {
  reason: {
    fits_alone: ({ machine, tokens_per_s }) => `Passt ganz auf ${machine}, ohne Umweg über das Netzwerk: etwa ${speed(tokens_per_s ?? 0)}`,
    split: ({ machines, tokens_per_s, network_percent }) =>
      `Auf ${decimal(machines)} Rechner verteilt: etwa ${speed(tokens_per_s ?? 0)}; ${percent(network_percent)} der Zeit braucht das Netzwerk`,
    slower_alone: ({ machine }) => `Auf ${machine} allein würde es auch passen, wäre aber langsamer`,
    too_big_for_one: () => "Zu groß für einen einzelnen Rechner",
    would_slow: ({ machine, tokens_per_s }) =>
      `${machine} rechnet nicht mit: Antworten wären um ${unit(decimal(tokens_per_s ?? 0, 1), "tok/s")} langsamer`,
    one_machine: () => "Das Modell passt auf einen Rechner",
    even_stages: () => "Alle Rechner lesen je Token etwa gleich viel",
    output_layer: ({ layers }) =>
      `Der letzte Rechner hat weniger Schichten: Er hält auch die Ausgabeschicht, die so groß ist wie ${layers === 1 ? "eine Schicht" : `${decimal(layers)} Schichten`}`,
    placed_manually: () => "Von Hand verteilt; bleibt so, bis das Modell entladen wird",
    not_as_placed: ({ why }) => `Die Verteilung von Hand ist gerade nicht möglich: ${why}`,
    tried_again: ({ machines }) =>
      `${all(machines)} ${machines.length === 1 ? "wird" : "werden"} noch einmal versucht, obwohl dort etwas scheiterte: Einen anderen Plan gibt es nicht`,
    not_worth_fetching: ({ machines }) => `Ohne ${all(machines)}: Das Modell müsste dort erst geholt werden und wäre kaum schneller`,
    fetched_first: ({ machines }) => `Das Modell ist noch nicht auf ${all(machines)}; seine Schichten werden zuerst dorthin geholt`,
    stays_here: () => "Läuft nur hier, weil Ihre Fragen auf diesem Rechner bleiben sollen",
    slower: ({ machine, percent: part }) => `${machine} ist mit ${percent(part)} des gemeldeten Tempos eingeplant, wie gemessen`,
    unproven: ({ machine, times }) =>
      `${machine} meldet das ${decimal(times ?? 0)}-Fache des eingeplanten Tempos; das eingeplante gilt, bis eine Antwort das gemeldete bestätigt`,
    had_no_room: ({ machine }) => `${machine} ist mit weniger Speicher eingeplant als gemeldet: Eben wurden dort Schichten abgelehnt`,
    away: ({ machine }) => `${machine} ist abwesend`,
    not_sharing: ({ machine }) => `${machine} gibt nichts frei`,
    not_there: ({ machine }) => `${machine} ist abwesend oder gibt nichts frei`,
    no_prompts: ({ machine }) => `${machine} rechnet nicht mit: darf Ihre Fragen nicht sehen`,
    no_model: ({ machine }) => `${machine} hat das Modell nicht`,
    no_starter: ({ machine, model }) => `${machine} hat ${model} nicht, das zu HiveMind gehört: Bitte HiveMind dort aktualisieren`,
    no_download: ({ machine, model, folder, command }) =>
      `${machine} hat ${model} nicht: Bitte dort ${folder} in den Modell-Cache kopieren oder „${command}“ ausführen`,
    no_file: ({ machine, model }) =>
      `${machine} hat ${model} nicht: Bitte dorthin kopieren und dort einmal „hivemind models load PFAD“ ausführen, damit es bekannt ist`,
    other_starter: ({ machine, model }) => `${model} auf ${machine} ist ein anderes als hier: Bitte HiveMind auf beiden Rechnern aktualisieren`,
    other_model: ({ machine, model }) =>
      `${model} auf ${machine} ist ein anderes als hier: Bitte beide auf dieselbe Version bringen oder das hiesige dorthin kopieren`,
    unusable_model: ({ machine, model }) =>
      `${model} auf ${machine} ist nicht verwendbar; „hivemind models list“ sagt dort, warum. Bitte das hiesige dorthin kopieren`,
    failed: ({ machine, minutes }) => `${machine} rechnet ${unit(decimal(minutes), "min")} lang nicht mit: Dort ist etwas gescheitert`,
    wrong_numbers: ({ machine, hours }) => `${machine} ist ${unit(decimal(hours), "h")} lang ausgeschlossen: Dort wurde falsch gerechnet`,
    pinned: ({ model }) => `${model} ist angeheftet und behält seinen Speicher`,
  },
  trouble: {
    lost: ({ machine, loss }) => `${machine} ${LOST[loss]}; weiter ohne diesen Rechner`,
    stuck: () => "Nichts kommt mehr an; die Rechner werden neu verbunden",
    not_answering: ({ machines, seconds }) =>
      `${all(machines) || "Das Modell"} ${machines.length > 1 ? "antworten" : "antwortet"} seit ${unit(decimal(seconds), "s")} nicht; wird geprüft`,
    wrong_numbers: ({ machine, token }) => `${machine} hat falsch gerechnet und ist ausgeschlossen; der Text ab Token ${decimal(token)} kann falsch sein`,
  },
  event: {
    started: ({ version }) => `HiveMind ${version} gestartet`,
    stopped: () => "HiveMind beendet",
    pairing_asked: (line) =>
      line.by_them
        ? `${known(line)} möchte beitreten${line.invited ? ", mit einer Einladung" : ""}: Code ${line.code}`
        : `Dieser Rechner möchte sich mit ${known(line)} koppeln: Code ${line.code}`,
    approved: (line) => `${known(line)} zugelassen: Code ${line.code}`,
    pairing_ended: (line) => {
      switch (line.how) {
        case "denied_here":
          return `${known(line)} abgelehnt`;
        case "denied_there":
          return `${known(line)} hat abgelehnt`;
        case "timed_out":
          return `${known(line)} wurde nicht rechtzeitig zugelassen`;
        case "broke_off":
          return `${known(line)} brach ab, bevor beide zugelassen waren`;
        case "not_kept":
          return `${known(line)} konnte nicht zugelassen werden: Die Festplatte nimmt nichts an`;
      }
    },
    name_taken: (line) => `Ein anderer Rechner (${line.machine?.fingerprint ?? "?"}) nennt sich ${name(line)}, so wie der zugelassene Rechner (${line.approved})`,
    removed: (line) => `${known(line)} entfernt`,
    restored: (line) => `${known(line)} wiederhergestellt`,
    blocked: (line) => `${known(line)} gesperrt`,
    renamed: (line) => `${known(line)} heißt nun ${line.name}`,
    invited: ({ valid_for_s }) => `Einladung erstellt, gültig für ${time(valid_for_s)}`,
    rights_changed: (line) => {
      const limits = [
        line.memory_limit_bytes == null ? "" : `höchstens ${gigabytes(line.memory_limit_bytes)}`,
        line.session_limit == null ? "" : `höchstens ${several(line.session_limit, "Antwort", "Antworten")} gleichzeitig`,
      ].filter((limit) => limit);
      const within = limits.length > 0 ? ` (${limits.join(", ")})` : "";
      return `${name(line)} darf den Speicher dieses Rechners ${line.memory ? `nutzen${within}` : "nicht nutzen"} und Ihre Fragen ${line.prompts ? "" : "nicht "}sehen`;
    },
    admin_action: ({ program, action }) => `Das Programm „${program}“ hat Folgendes getan: ${action}`,
    loaded: (line) => `${name(line)} hat ${line.standby ? "als Reserve " : ""}${layers(line.layers)} von ${line.model} geladen (${gigabytes(line.bytes)})`,
    freed: (line) => `${layers(line.layers)} von ${line.model} für ${name(line)} freigegeben`,
    used: (line) =>
      `${name(line)} hat diesen Rechner genutzt: ${several(line.sessions, "Chat", "Chats")}, ${decimal(line.tokens)} Token, ${time(line.seconds)}`,
    refused: (line) => {
      const times = (line.count ?? 1) > 1 ? `, ${decimal(line.count ?? 1)}-mal` : "";
      return `${name(line)} abgewiesen (${ASKED[line.asked]}): ${REFUSED[line.why]}${times}`;
    },
    left_out: (line) => `${entries(line.entries)}${line.machine ? ` über ${name(line)}` : ""} an diesem Tag nicht aufgezeichnet`,
    lost: (line) => `${several(line.entries, "Eintrag konnte", "Einträge konnten")} nicht auf die Festplatte geschrieben werden`,
  },
};
