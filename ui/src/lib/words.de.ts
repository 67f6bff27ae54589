/** All user-visible text in German, loaded when a window speaks it. A word that is missing is a type error. */

import type { Cause, Fit, Refused } from "./bindings";
import { decimal, gigabytes, parameters, several, speed, together, unit } from "./numbers";
import { said } from "./said.de";
import type { Words } from "./words";

const tokens = (count: number): string => `${decimal(count)} Token`;
const percent = (value: number): string => unit(decimal(value), "%");
/** "Rechner" is the same for one and for many. */
const machines = (count: number): string => `${decimal(count)} Rechner`;
const seconds = (value: number): string => unit(decimal(value, 1), "s");
/** A sentence, and what the node said. */
const quoting = (sentence: string) => (said: string): string => `${sentence} Meldung: „${said}“`;

export const german: Words = {
  layers: (count, which) => `${count === 1 ? "Schicht" : "Schichten"} ${which}`,
  thisWeek: "Diese Woche",
  older: "Älter",
  yesterday: (time) => `gestern ${time}`,
  away: "abwesend",
  awaySince: (moment) => `abwesend seit ${moment}`,
  share: "Rechenleistung freigeben",
  machines: "Rechner",
  models: "Modelle",
  chat: "Chat",
  settings: "Einstellungen",
  openChat: "Chat öffnen",
  quit: "Beenden",
  memoryHere: "Speicher dieses Rechners",
  swarmGives: (bytes) => (bytes > 0 ? `${gigabytes(bytes)} im Schwarm verfügbar` : "Kein Rechner gibt Speicher frei"),
  wantsToJoin: (name) => `${name} möchte beitreten`,
  waitsFor: (name) => `Warten auf ${name}`,
  codeHint: "Nur zulassen, wenn der andere Rechner dieselben sechs Ziffern zeigt.",
  approve: "Zulassen",
  deny: "Ablehnen",
  noModel: "Kein Modell geladen. Die nächste Frage lädt eines.",
  lastMinute: "Tempo der letzten Minute",
  newChat: "Neuer Chat",
  search: "Suchen",
  message: "Nachricht\u00a0…",
  send: "Senden",
  stop: "Stopp",
  copy: "Kopieren",
  copied: "Kopiert",
  again: "Neu antworten",
  edit: "Bearbeiten",
  goOn: "Fortsetzen",
  reading: (read, of) => `Liest: ${decimal(read)} von ${tokens(of)}`,
  remove: "Löschen",
  rename: "Umbenennen",
  openFolder: "Ordner öffnen",
  welcome: "Willkommen bei HiveMind",
  welcomeNoModel: "Noch ist kein Modell hier. Laden Sie eines unter „Modelle“ und fragen Sie dann unten etwas.",
  welcomeAsk: "Stellen Sie unten eine Frage. Ein kleines Modell ist eingebaut: Es kann sofort losgehen, auch mit nur einem Rechner.",
  stepAsk: "1  Fragen",
  stepShare: "2  Freigeben",
  stepAdd: "3  Rechner hinzufügen",
  welcomeShare: "Leihen Sie freien Speicher Ihren anderen Rechnern. Ihre Apps gehen vor, und nur zugelassene Rechner können beitreten.",
  welcomeMachines: "HiveMind auf einem anderen Rechner in diesem Netzwerk öffnen. Zeigen beide dieselben sechs Ziffern, den Rechner zulassen. Das ist nur einmal nötig.",
  nothingYet: "Stellen Sie eine Frage. Alles bleibt auf Ihren Rechnern.",
  load: "Laden",
  loading: "Lädt\u00a0…",
  unload: "Entladen",
  pauseDownload: "Anhalten",
  resumeDownload: "Fortsetzen",
  huggingFace: "Hugging Face",
  hubToken: "Hugging-Face-Token",
  hubTokenIs:
    "Ein Token für Modelle, deren Lizenz Sie dort angenommen haben. Er bleibt auf diesem Gerät, und nur Ihre eigenen Downloads verwenden ihn.",
  tokenStored: "Ein Token ist gespeichert",
  tokenOfEnvironment: "HF_TOKEN wird verwendet",
  saveToken: "Token speichern",
  forgetToken: "Token entfernen",
  makeToken: "Token erstellen",
  openItsPage: "Seite öffnen",
  pinnedMeans: "Ein angeheftetes Modell bleibt im Speicher, sobald es geladen ist, und auf dieser Festplatte.",
  alsoCalled: (names) => `Auch ${names.join(", ")}`,
  withAdapter: (names) => `Mit Adapter: ${names.join(", ")}`,
  removeModel: "Löschen\u00a0…",
  removeFromDisk: "Von dieser Festplatte löschen?",
  takeOffList: "Aus der Liste entfernen? Die Dateien bleiben, wo sie sind.",
  cancel: "Abbrechen",
  layersLoaded: (layers, of) => `${layers} von ${of} Schichten`,
  gettingReady: "Wird vorbereitet. Beim ersten Mal auf einer NVIDIA-Karte dauert das eine Minute.",
  fetched: (done, of) => `Wird geholt: ${gigabytes(done)} von ${gigabytes(of)}`,
  swarmHas: (bytes, count) =>
    count === 0
      ? "Kein Rechner gibt Speicher frei; Modelle laufen nur auf diesem."
      : `${gigabytes(bytes)} auf ${machines(count)}${count === 1 ? "" : "n"} verfügbar. Jedes Modell zeigt, wo es laufen würde.`,
  fits: (needs, has, count) =>
    count === 0
      ? `Belegt ${gigabytes(needs)} auf diesem Rechner`
      : `Belegt ${gigabytes(needs)}; ${gigabytes(has)} auf ${machines(count)}${count === 1 ? "" : "n"} verfügbar`,
  exported: (file) => `Gesichert als ${file}`,
  showInFolder: "Im Ordner zeigen",
  copyChat: "Chat kopieren",
  export: "Exportieren",
  editDropped: "Änderung verworfen",
  deleted: (title) => `„${title}“ gelöscht`,
  undo: "Widerrufen",
  dismiss: "Ausblenden",
  skip: "Überspringen",
  openAtLogin: "Bei der Anmeldung öffnen",
  askNotify: "Mitteilen, wenn ein Rechner beitreten möchte, auch ohne offenes Fenster?",
  yes: "Ja",
  no: "Nein",
  saved: "Gesichert",
  restart: "Neu starten",
  updateCheck: "Nach Updates suchen",
  updateInstall: "Installieren",
  updateLooking: "Updates werden gesucht\u00a0…",
  updateCurrent: "HiveMind ist aktuell.",
  updateFound: (version) => `Version ${version} ist verfügbar.`,
  updateFetching: (version, done) => `Version ${version} wird geladen: ${percent(done)}`,
  updateReady: (version) => `Version ${version} ist bereit. Zum Aktualisieren neu starten; Ihre anderen Rechner übernehmen so lange.`,
  noMatch: "Keine Treffer",
  looksForAPlace: "Prüft, wohin es passt\u00a0…",
  noModels: "Noch keine Modelle.",
  about: (speed) => `Etwa ${speed}`,
  pauseSharing: "Freigabe pausieren",
  forAnHour: "Eine Stunde",
  endPause: "Freigabe fortsetzen",
  whenToShare: "Wann freigeben",
  onlyOnPower: "Nur mit Netzteil",
  onlyWhenIdle: "Nur, wenn unbenutzt seit",
  always: "Jederzeit",
  diskLimit: "Höchstens für geholte Modelle",
  unloadAfter: "Unbenutzte Modelle entladen nach",
  never: "Nie",
  neverMore: "Höchstens freigeben",
  sendAtMost: "Höchstens senden an andere",
  downloadAtMost: "Höchstens laden von Hugging Face",
  noLimit: "Unbegrenzt",
  thisApp: "Diese App",
  accent: "Akzentfarbe",
  accents: {
    honey: "Honig",
    blue: "Blau",
    purple: "Violett",
    pink: "Rosa",
    red: "Rot",
    green: "Grün",
    graphite: "Graphit",
  },
  notify: "Beitrittsanfragen und fertige Antworten mitteilen",
  network: "Netzwerk",
  shownName: "Name auf anderen Rechnern",
  lanOnly: "Im lokalen Netzwerk bleiben",
  relay: "Relay",
  apiAddress: "Lokale API-Adresse",
  bindAddress: "Adresse für andere Rechner",
  anyAddress: "Automatisch",
  model: "Modell",
  starter: "Startmodell",
  panel: "Anweisungen und Sampling",
  instructions: "Anweisungen für diesen Chat",
  youAre: "Du bist\u00a0…",
  temperature: "Temperatur",
  topP: "Top-p",
  thinking: "Denken",
  effort: "Aufwand",
  modelDecides: "Vorgabe des Modells",
  on: "Ein",
  off: "Aus",
  efforts: { low: "Gering", medium: "Mittel", high: "Hoch" },
  otherOptions: "Weitere Optionen",
  likeOption: "Name=Wert,\u00a0…",
  messages: "Nachrichten",
  you: "Sie",
  answer: "Antwort",
  brokeOff: (why) => `Die Antwort wurde unterbrochen: ${why}. Nichts ist verloren; „Fortsetzen“ macht an dieser Stelle weiter.`,
  conversations: "Chats",
  searchConversations: "Chats durchsuchen",
  standsBy: "Reserve für",
  otherPaths: "Andere Wege",
  thisMachine: "Dieser Rechner",
  own: (name) => `${name} (dieser Rechner)`,
  anotherName: "Anderer Name",
  removeMachine: "Entfernen",
  mayUseMemory: "Darf den Speicher dieses Rechners nutzen",
  maySeePrompts: "Darf Ihre Fragen sehen",
  limits: (bytes, answers) =>
    [
      bytes === null ? "" : `Hier höchstens ${gigabytes(bytes)}. `,
      answers === null ? "" : `Höchstens ${several(answers, "Antwort", "Antworten")} gleichzeitig.`,
    ].join(""),
  whyThisPlan: "Warum dieser Plan",
  nearby: "In der Nähe",
  add: "Hinzufügen\u00a0…",
  elsewhere: "Entfernten Rechner verbinden",
  invitationFrom: "Dessen Einladung einsetzen",
  invitation: "Einladung",
  join: "Beitreten",
  copiesInvitation: "Kopiert eine Einladung, die einmal und 24\u00a0Stunden lang gilt",
  yourInvitation: "Ihre Einladung zum Kopieren",
  copyInvitation: "Einladung kopieren",
  ring: "Der Ring der Rechner",
  noLayers: "keine Schichten",
  holds: (who, layers, state) => `${who}: ${layers}, ${state}`,
  shares: (bytes) => `gibt ${gigabytes(bytes)} frei`,
  thereAndBack: (kind, time) => `${kind}, ${time} hin und zurück`,
  updates: "Updates",
  of: (part, whole) => `${part} von ${whole}`,
  ofModel: (bytes) => `Modell ${gigabytes(bytes)}`,
  given: "freigegeben",
  free: "frei",
  ofSystem: (bytes) => `System ${gigabytes(bytes)}`,
  recommended: (bytes) => `Empfohlen: ${gigabytes(bytes)}`,
  mostToGive: "Höchstens freigegebener Speicher",
  speedNow: (speed) => `Tempo der letzten Minute: jetzt ${speed}`,
  waiting: (requests) => `${requests} warten`,
  inMemory: "Geladen auf:",
  onDisk: (bytes, whole, others) =>
    `${whole === null ? "" : `${gigabytes(bytes)} von `}${gigabytes(whole ?? bytes)} auf der Festplatte${others.length ? `, auch auf ${together(others)}` : ""}`,
  approvedWith: "Zugelassen mit Code",
  happened: "Aktivität auf diesem Rechner",
  did: (name) => `Was ${name} auf diesem Rechner getan hat`,
  nothingHappened: "Noch keine Aktivität.",
  key: "Fingerabdruck",
  chip: "Chip",
  gives: "Gibt frei",
  holdsLayers: "Hält",
  alone: "Tempo allein (Startmodell)",
  link: "Verbindung",
  now: "Status",
  stopKey: "Esc",
  givesNothing: "nicht freigegeben",
  approvedHere: "Hier zugelassen. Nun auf dem anderen Rechner zulassen.",
  answeredBy: (tokens_per_s, names, first_s) =>
    [
      tokens_per_s ? speed(tokens_per_s) : "",
      together(names),
      first_s === null ? "" : `erstes Wort: ${seconds(first_s)}`,
    ]
      .filter((part) => part)
      .join(" · "),
  computed: (names, count) => `${together(names)}: ${tokens(count)}.`,
  tookOver: (why, pause_s) => `${why.replace(/[.…]+$/, "")}; ${seconds(pause_s)}, kein Wort verloren.`,
  tryAgain: "Erneut versuchen",
  jump: "Springen",
  jumpTo: "Chat, Seite oder Wörter",
  contextUsed: (used) => `${percent(used)} vom Kontext dieses Modells`,
  contextFull: (used) => `Dieser Chat füllt ${percent(used)} vom Kontext des Modells. Vorher einen neuen Chat beginnen.`,
  quickAsk: "Frage stellen\u00a0…",
  newQuestion: "Neue Frage",
  openInChat: "Im Chat öffnen",
  versionBefore: "Vorige Fassung",
  versionAfter: "Nächste Fassung",
  notSaved: (why) => `Die Antwort ist noch nicht gesichert: ${why}. Neuer Versuch\u00a0…`,
  newestBelow: "↓ Neueste",
  doTo: (does, title) => `${does}: ${title}`,
  pin: "Anheften",
  unpin: "Lösen",
  archive: "Archivieren",
  unarchive: "Aus dem Archiv holen",
  archived: "Archiv",
  pinned: "Angeheftet",
  answeringNow: "Antwortet\u00a0…",
  // What an answer holds.
  thinkingNow: "Denkt nach\u00a0…",
  thoughts: "Gedanken",
  thoughtFor: (time) => {
    const whole = Math.max(1, Math.round(time));
    if (whole < 60) return `${unit(decimal(whole), "s")} nachgedacht`;
    return `${unit(decimal(Math.floor(whole / 60)), "min")} ${unit(decimal(whole % 60), "s")} nachgedacht`;
  },
  table: "Tabelle",
  formula: "Formel",
  code: "Code",
  wrap: "Umbrechen",
  diagram: "Diagramm",
  diagramOf: (kind) => `Diagramm (${kind})`,
  done: "Erledigt",
  notDone: "Nicht erledigt",
  noSuchOption: (name) => `dieses Modell hat keine Option „${name}“`,
  // Links, menus and shortcuts.
  openSite: (site) => `${site} im Browser öffnen?`,
  writeTo: (address) => `Im Mailprogramm an ${address} schreiben?`,
  address: "Adresse",
  open: "Öffnen",
  close: "Schließen",
  openLink: "Link öffnen\u00a0…",
  copyLink: "Link kopieren",
  copyAddress: "Adresse kopieren",
  alwaysOpen: "Bei dieser Website nicht mehr fragen",
  askAgain: "Bei dieser Website wieder fragen",
  leadsElsewhere: (site) => `Der Text des Links nennt ${site}, er führt aber woandershin.`,
  foreignLetters: "Der Name dieser Website hat Buchstaben, die mit anderen verwechselt werden können. Bitte prüfen, ob es die gemeinte Website ist.",
  menu: "Menü",
  cut: "Ausschneiden",
  paste: "Einsetzen",
  selectAll: "Alles auswählen",
  useKeys: (mac) => `Das Menü erreicht hier die Zwischenablage nicht. Stattdessen ${mac ? "⌘" : "Strg+"}X, C oder V drücken.`,
  skipToMessage: "Zur Nachricht springen",
  skipToPage: "Zur Seite springen",
  sharingNow: "Aktiv",
  computingNow: "Rechnet",
  pausedNow: "Pausiert",
  notSharing: "Inaktiv",
  shortcutList: "Tastaturkurzbefehle",
  or: "oder",
  textSizeNow: (size) => `Textgröße ${percent(size)}`,
  control: "Strg",
  shift: "Umschalt",
  shortcutGroups: { pages: "Seiten", chats: "Chats", message: "Nachricht", text: "Textgröße", window: "Fenster" },
  shortcuts: {
    chat: "Chat",
    machines: "Rechner",
    models: "Modelle",
    settings: "Einstellungen",
    newChat: "Neuer Chat",
    search: "Chats durchsuchen",
    jump: "Zu einem Chat oder einer Seite",
    send: "Senden",
    line: "Neue Zeile",
    stop: "Antwort stoppen",
    bigger: "Größer",
    smaller: "Kleiner",
    usual: "Standard",
    menu: "Kontextmenü",
    list: "Diese Liste",
    hide: "Fenster schließen",
    quit: "HiveMind beenden",
  },
  // Files in a message.
  attach: "Dateien anhängen",
  attached: "Angehängte Dateien",
  attachedNow: (names) => `Angehängt: ${names.join(", ")}`,
  detachedNow: (name) => `${name} entfernt`,
  detach: (name) => `${name} entfernen`,
  dropHere: "Dateien hier ablegen, um sie anzuhängen",
  pastedText: "Eingesetzter Text",
  insertAsText: "Als Text einfügen",
  fileSize: (bytes) => (bytes < 1000 ? several(bytes, "Byte", "Byte") : unit(decimal(bytes / 1000, bytes < 10_000 ? 1 : 0), "kB")),
  aboutTokens: (count) => `etwa ${tokens(count)}`,
  tooLong: (over) => `Um etwa ${decimal(over)} Zeichen zu lang für jedes Modell hier. Bitte einen kürzeren Teil einsetzen.`,
  fileTooLong: (name, over) => `${name} passt nicht: Die Nachricht würde um etwa ${decimal(over)} Zeichen zu lang.`,
  isBinary: (name) => `${name} ist keine Textdatei und kann nicht angehängt werden.`,
  isUnreadable: (name) => `${name} kann nicht gelesen werden. Bei einem Ordner bitte dessen Dateien anhängen.`,
  leftBehind: (name) => `${name} wurde nicht angehängt, weil ein anderer Chat geöffnet wurde.`,
  cannotSee: "Dieses Modell kann keine Bilder sehen. Es wird nicht gesendet.",
  exactTokens: tokens,
  pages: (count) => several(count, "Seite", "Seiten"),
  readingFile: (name, page, of) => (of > 0 ? `${name} wird gelesen: Seite ${decimal(page)} von ${decimal(of)}` : `${name} wird gelesen\u00a0…`),
  stopReading: (name) => `${name} nicht weiter lesen`,
  isScan: (name) => `${name} enthält Bilder von Seiten, aber keinen Text. Bitte erst die Texterkennung (OCR) anwenden.`,
  isLocked: (name) => `${name} hat ein Kennwort. Bitte eine Kopie ohne Kennwort anhängen.`,
  isDamaged: (name) => `${name} ist beschädigt oder keine PDF-Datei.`,
  tooManyPages: (name, count, most) =>
    `${name} hat ${decimal(count)} Seiten; höchstens ${decimal(most)} können gelesen werden. Bitte einen Teil anhängen.`,
  tooHeavy: (name, most) => `${name} ist größer als ${gigabytes(most)}. Bitte einen Teil anhängen.`,
  moreThanFits: (name, page, count) =>
    `${name} passt nicht: In eine Nachricht passen etwa die ersten ${decimal(page)} von ${decimal(count)} Seiten. Bitte einen Teil anhängen.`,
  editText: (name) => `Text von ${name}`,
  askAnywhere: "Tasten für eine Frage von überall",
  pressKeys: "Tasten drücken\u00a0…",
  noShortcut: "Aus",
  removeShortcut: "Tasten entfernen",
  askAnywhereIs: "Öffnet über jedem Programm ein Feld für eine Frage. Ins Feld klicken und Tasten drücken, etwa Strg+Umschalt+Leertaste.",
  newChatWithSummary: "Neuer Chat mit Zusammenfassung",
  summaryOf: (title) => `Zusammenfassung von „${title}“`,
  summarising: (title) => `„${title}“ wird zusammengefasst\u00a0…`,
  summaryReady: "Die Zusammenfassung geht mit der nächsten Nachricht. Zum Lesen oder Ändern öffnen.",
  summaryOfNewest: (used, of) =>
    `Der Chat war zu lang, um ihn auf einmal zusammenzufassen. Die Zusammenfassung umfasst ${used < 1 ? "das Ende der letzten Nachricht" : used === 1 ? `die letzte von ${decimal(of)} Nachrichten` : `die letzten ${decimal(used)} von ${decimal(of)} Nachrichten`}.`,
  noSummary: (why) => `Keine Zusammenfassung: ${why.replace(/[.…]+$/, "")}. Der Chat selbst ist unverändert.`,
  nothingSaid: "Das Modell hat nichts geschrieben",
  // Machines and the popover.
  joined: (names) => `${names.join(" und ")} ${names.length === 1 ? "ist" : "sind"} dabei.`,
  removeAsks: (name) => `${name} entfernen? Der Rechner rechnet dann nicht mehr für Sie. 30 Sekunden lang lässt sich das rückgängig machen, danach ist neu zu koppeln.`,
  removeAsk: "Entfernen\u00a0…",
  removed: (name) => `${name} entfernt`,
  didToday: (answers, count) => `${several(answers, "Antwort", "Antworten")}, ${tokens(count)}`,
  today: "Heute",
  showCode: "QR-Code zeigen",
  hideCode: "QR-Code ausblenden",
  codeOf: "QR-Code Ihrer Einladung",
  worksOnce: "Gilt einmal, 24\u00a0Stunden lang.",
  wouldShare: (bytes) => `Würde bis zu ${gigabytes(bytes)} freigeben`,
  notShared: "nicht freigegeben",
  // Settings, start and failures of it.
  afterRestart: "Gilt nach einem Neustart.",
  minutes: "Minuten",
  megabits: "Mbit/s",
  unitOf: (label) => `${label}: Einheit`,
  percent,
  look: "Erscheinungsbild",
  theme: "Farbschema",
  browser: "Browser und Telefon",
  browserIs: "Im Browser chatten und die Rechner sehen, auch auf dem Telefon. Jeder Browser bekommt einen eigenen Schlüssel, der sich oben entziehen lässt.",
  browserWhere: "HiveMind im Browser öffnen",
  browserPlace: (place) => (place === "off" ? "Aus" : place === "here" ? "Auf diesem Rechner" : "In diesem Netzwerk"),
  browserLink: "Link erstellen",
  browserLinkMade: "Link zu HiveMind",
  browserClosed: "Gerade kann kein Browser zugelassen werden. Schalten Sie dies aus und wieder ein.",
  browserCode: "QR-Code des Links",
  browserOnce: (minutes) => `Öffnet einen Browser, einmal, innerhalb von ${minutes} Minuten.`,
  browserWarns:
    "Der Browser warnt, dass er diesen Rechner nicht kennt. Nur fortfahren, wenn das angezeigte Zertifikat diesen SHA-256-Fingerabdruck hat:",
  enter: "Dieser Browser ist nicht verbunden",
  keyRevoked: "Sein Schlüssel wurde entzogen.",
  enterHow: "In HiveMind auf dem eigenen Rechner unter Einstellungen „Browser und Telefon“ wählen und den Link öffnen oder den Code scannen.",
  language: "Sprache",
  systemLanguage: "Automatisch",
  looks: { automatic: "Automatisch", light: "Hell", dark: "Dunkel" },
  textSize: "Textgröße",
  defaultModel: "Modell für neue Chats",
  builtInModel: "Eingebautes Modell",
  relays: { none: "Ohne", public: "Öffentlich", own: "Eigenes" },
  relayIs: "Ein Relay verbindet Rechner in verschiedenen Netzwerken. Was sie senden, kann es nicht lesen.",
  noRelayOnLan: "Im lokalen Netzwerk nicht verwendet.",
  relayUrl: "URL des Relays",
  webAddress: "https://",
  data: "Daten",
  dataFolder: "Datenordner",
  logFolder: "Protokoll über andere Rechner",
  openLog: "Protokoll öffnen",
  resetSettings: "Einstellungen zurücksetzen",
  resetDots: "Zurücksetzen\u00a0…",
  resetAsk: "Alle Einstellungen auf ihre Standardwerte zurücksetzen? Chats, Modelle und gekoppelte Rechner bleiben.",
  resetNow: "Zurücksetzen",
  aboutApp: "Über",
  versions: (version, webView, system) => `HiveMind ${version} · ${webView ? `WebKit ${webView} · ` : ""}${system}`,
  refused: (refused: Refused): string => {
    switch (refused.kind) {
      case "whole":
        return `Bitte eine ganze Zahl von ${decimal(refused.least)} bis ${decimal(refused.most)} eingeben.`;
      case "memory":
        return refused.most === null
          ? `Bitte mindestens ${gigabytes(refused.least)} eingeben.`
          : `Bitte ${gigabytes(refused.least)} bis ${gigabytes(refused.most)} eingeben. Um nichts freizugeben, die Freigabe ausschalten.`;
      case "name":
        return `Bitte höchstens ${refused.most} Zeichen verwenden.`;
      case "address":
        return "Bitte eine Adresse mit Port eingeben, etwa 0.0.0.0:4484.";
      case "loopback":
        return "Bitte eine Adresse dieses Rechners mit Port eingeben, etwa 127.0.0.1:4483.";
      case "relay":
        return "Bitte eine URL eingeben, etwa https://relay.example.org.";
      case "shortcut":
        return "Bitte eine Taste zusammen mit Strg, Alt oder ⌘ drücken, oder eine Funktionstaste.";
      case "shortcut_taken":
        return "Ein anderes Programm verwendet diese Tasten. Bitte andere wählen.";
      case "shortcut_not_here":
        return "Auf diesem Desktop (Wayland) können Programme keine Tasten überall verwenden. In einer X11-Sitzung geht es.";
    }
  },
  api: "API für Programme",
  apiIs: "Programme auf diesem Rechner können Ihre Modelle wie die von OpenAI verwenden. Jedes braucht einen Schlüssel.",
  apiOff: (why) => `Aus: ${why}`,
  useAnotherPortNow: "Anderen Port verwenden und neu starten",
  keys: "Schlüssel",
  newKey: "Neuer Schlüssel",
  program: "Name des Programms",
  createKey: "Erstellen",
  keyOf: (name) => `Schlüssel für ${name}`,
  shownOnce: (name) => `Den Schlüssel für ${name} jetzt kopieren. Er wird nicht noch einmal gezeigt.`,
  yourKey: "IHR_SCHLUESSEL",
  example: "Beispiel",
  exampleQuestion: "Hallo",
  revoke: "Entziehen",
  revokeKeyOf: (name) => `Schlüssel für ${name} entziehen`,
  revokeAsk: "Das Programm verliert den Zugriff.",
  revokeNow: "Entziehen",
  lastUsed: (daysAgo) =>
    daysAgo === null ? "Nie benutzt" : daysAgo === 0 ? "Heute benutzt" : daysAgo === 1 ? "Gestern benutzt" : `Vor ${daysAgo} Tagen benutzt`,
  copyThat: (what) => `${what} kopieren`,
  notCopied: "Kopieren nicht möglich",
  restartToUpdate: "Neustart für Update",
  openModels: "Modellordner öffnen",
  lookAgain: "Erneut suchen",
  needsMemory: (bytes) => `Braucht ${gigabytes(bytes)} Speicher`,
  usesMemory: (bytes) => `Belegt ${gigabytes(bytes)} Speicher`,
  takesDisk: (size) => `${size} auf der Festplatte`,
  unusableModels: "Nicht verwendbar",
  sentence: (why) => `${why.charAt(0).toUpperCase()}${why.slice(1)}${/[.!?…]$/.test(why) ? "" : "."}`,
  cannotLoad: "HiveMind kann dieses Modell nicht laden. Seine Dateien sind beschädigt oder unvollständig, oder diese Art wird noch nicht unterstützt.",
  details: "Einzelheiten",
  downloadAgain: "Falls es funktionieren sollte: löschen und noch einmal laden.",
  // Models that are added by hand.
  addModel: "Datei oder Ordner hinzufügen\u00a0…",
  dropModel: "Ablegen, um dieses Modell hinzuzufügen",
  readingModels: (names) => `${names.join(", ")} wird gelesen\u00a0…`,
  addedModels: (names) => `Hinzugefügt: ${names.join(", ")}.`,
  notAdded: (name, why) => `${name} wurde nicht hinzugefügt: ${why}`,
  moreRefused: (more) => (more === 1 ? "Ein weiteres Objekt wurde nicht hinzugefügt." : `${decimal(more)} weitere Objekte wurden nicht hinzugefügt.`),
  whereabouts: "HiveMind sieht nicht, wo das liegt. Bitte stattdessen „Datei oder Ordner hinzufügen\u00a0…“ wählen.",
  notAModel: (name, found) => {
    switch (found.kind) {
      case "parts_missing":
        return `${decimal(found.missing)} von ${decimal(found.of)} Dateien von ${name} ${found.missing === 1 ? "fehlt" : "fehlen"}. Bitte alle in einen Ordner legen.`;
      case "companion":
        return `${name} gehört zu einem Modell, ist aber keines. Bitte die .gguf-Datei des Modells selbst ablegen.`;
      case "several":
        return `${name} enthält mehrere Modelle. Bitte eine der .gguf-Dateien ablegen.`;
      case "no_config":
        return `${name} hat Gewichte, aber keine config.json. Bitte einen Ordner mit beidem ablegen.`;
      case "no_weights":
        return `${name} kommt ohne Gewichte. Bitte einen Ordner mit config.json und .safetensors-Dateien ablegen.`;
      case "pickled":
        return `${name} wird nicht geöffnet: .bin-, .pt-, .pth- und .ckpt-Dateien können beliebige Programme ausführen. Bitte die .gguf- oder .safetensors-Dateien des Modells nehmen.`;
      case "gone":
        return `${name} ist nicht mehr da.`;
      case "closed":
        return `${name} kann nicht gelesen werden: Die Berechtigung fehlt.`;
      case "unnameable":
        return `${name} kann mit diesem Namen nicht geladen werden. Bitte umbenennen: ohne Leerzeichen am Ende und ohne unlesbare Zeichen.`;
      default:
        return `${name} ist kein Modell. Bitte eine .gguf-Datei ablegen oder einen Ordner mit config.json und .safetensors-Dateien.`;
    }
  },
  // Models that could be fetched.
  findModel: "Modell finden",
  searchModels: "Modelle suchen",
  onlyModels: "Nur zeigen",
  modelFilters: { fits: "Passt jetzt", code: "Code", tools: "Werkzeuge", thinking: "Denken" },
  parameters: (all, active) => `${parameters(all)}${active === null ? "" : `, davon ${parameters(active)} aktiv`}`,
  licence: (name) => `Lizenz: ${name}`,
  readsUpTo: (count) => `Bis zu ${tokens(count)}`,
  goodFor: (what) => `Gut für ${what}`,
  skills: {
    chat: "Chat",
    code: "Code",
    reasoning: "Schlussfolgern",
    tools: "Werkzeuge",
    languages: "Sprachen",
    "long documents": "lange Dokumente",
    "small machines": "kleine Rechner",
  },
  variant: (quantization, bytes, approximate) => `${quantization} · ${approximate ? "etwa " : ""}${gigabytes(bytes)}`,
  verdict: (fit: Fit) => {
    switch (fit.verdict) {
      case "comfortable":
        return "Passt bequem";
      case "snug":
        return `Passt knapp: noch ${gigabytes(fit.left_bytes)} frei auf ${fit.machine}`;
      case "needs_more":
        return `Braucht ${gigabytes(fit.bytes)} mehr`;
      default:
        return "";
    }
  },
  get: "Holen",
  getAnyway: "Trotzdem holen",
  isLoaded: "Geladen",
  chatWith: "Chatten",
  suggested: "Ein Modell für diesen Schwarm",
  suggests: (name) => `Hier ist nur das kleine Startmodell. ${name} passt gut auf Ihre Rechner.`,
  getSized: (name, size) => `${name} holen (${size})`,
  findAnother: "Anderes finden\u00a0…",
  pickAnother: "Modell finden\u00a0…",
  moreSizes: (count) => several(count, "weitere Größe", "weitere Größen"),
  fewerSizes: "Weniger Größen",
  showMore: "Mehr anzeigen",
  noModelMatches: "Kein passendes Modell.",
  getFromHub: (name) => `${name} von Hugging Face holen`,
  startFailure: (cause: Cause) => {
    switch (cause.kind) {
      case "in_use":
        return {
          title: "HiveMind läuft bereits",
          text:
            cause.process === null
              ? `Ein anderes HiveMind benutzt diese Daten (${cause.by}). Bitte beenden, dann erneut versuchen.`
              : `Ein HiveMind ohne Fenster benutzt diese Daten (${cause.by}). Zum Öffnen der App stoppen, oder laufen lassen und die App beenden.`,
        };
      case "not_writable":
        return {
          title: "HiveMind kann seine Daten nicht schreiben",
          text: `Hierfür Schreibrechte einräumen, dann erneut versuchen: ${cause.path}`,
          detail: cause.why,
        };
      case "full":
        return { title: "Die Festplatte ist voll", text: `Auf der Festplatte von ${cause.path} Platz schaffen, dann erneut versuchen.` };
      case "damaged": {
        const { what, without } = holds(cause.file);
        return {
          title: `HiveMind kann ${what} nicht lesen`,
          text: `${cause.file} ist beschädigt. Die Datei lässt sich beiseitelegen, um ohne sie zu starten: ${without} Gelöscht wird nichts.`,
          detail: cause.why,
        };
      }
      case "newer": {
        const { what, without } = holds(cause.file);
        return {
          title: `Ein neueres HiveMind hat ${what} geschrieben`,
          text: `HiveMind aktualisieren, oder ${cause.file} beiseitelegen und ohne diese Datei starten: ${without} Gelöscht wird nichts.`,
        };
      }
      case "port":
        return {
          title: "Der Port für andere Rechner ist belegt",
          text: "HiveMind kann einen anderen Port verwenden, den die anderen Rechner von selbst finden.",
          detail: cause.why,
        };
      case "other":
        return { title: "HiveMind konnte nicht starten", text: sentence(cause.why, cause.hint) };
    }
  },
  remedies: {
    try_again: "Erneut versuchen",
    stop_other: "Stoppen und starten",
    use_another_port: "Anderen Port verwenden",
    move_aside: "Beiseitelegen und starten",
    open_folder: "Ordner öffnen",
    quit: "Beenden",
  },
  stopping: "Wird gestoppt\u00a0…",
  preset: "Vorlage",
  noPreset: "Keine",
  noPresets: "Noch keine gesichert",
  presetForNew: (name) => `${name} · für neue Chats`,
  presetName: "Name der Vorlage",
  save: "Sichern",
  savePreset: "Als Vorlage sichern\u00a0…",
  updatePreset: "Vorlage aktualisieren",
  renamePreset: "Vorlage umbenennen\u00a0…",
  useForNew: "Für neue Chats verwenden",
  usedForNew: "✓ Für neue Chats",
  deletePreset: "Vorlage löschen",
  deletedPreset: (name) => `Vorlage „${name}“ gelöscht`,
  nameChats: "Das Modell benennt neue Chats",
  prompts: "Prompt-Sammlung",
  findPrompt: "Prompt suchen",
  insertAPrompt: "Prompt einfügen (/)",
  noPrompts: "Noch keine Prompts",
  newPrompt: "Neuer Prompt\u00a0…",
  savePrompt: "Als Prompt sichern\u00a0…",
  editPrompt: (name) => `„${name}“ bearbeiten`,
  deletePrompt: (name) => `„${name}“ löschen`,
  deletedPrompt: (name) => `Prompt „${name}“ gelöscht`,
  promptName: "Bezeichnung",
  promptText: "Wortlaut",
  promptFields: "Nach einem Wort in doppelten Klammern wie {{Sprache}} wird jedes Mal gefragt.",
  insertPrompt: "Einfügen",
  starters: {
    summarise: {
      name: "Zusammenfassen",
      text: "Fasse den folgenden Text in wenigen Sätzen zusammen und nenne dann seine wichtigsten Punkte:\n\n{{Text}}",
    },
    explain: { name: "Einfach erklären", text: "Erkläre {{Thema}} in einfachen Worten, mit einem Beispiel aus dem Alltag." },
    review: {
      name: "Code prüfen",
      text: "Prüfe diesen Code. Nenne zuerst Fehler, dann was einfacher ginge. Zeige jede Änderung als Code:\n\n{{Code}}",
    },
    translate: { name: "Übersetzen", text: "Übersetze den folgenden Text in diese Sprache: {{Sprache}}. Behalte den Ton bei:\n\n{{Text}}" },
  },
  said,
  // Where details matter, what the node says follows in English.
  problems: {
    adapter_not_usable: quoting("Der Adapter ist nicht verwendbar."),
    answering: "In diesem Chat entsteht gerade eine Antwort. Bitte zuerst stoppen.",
    api: "Die API ist ausgeschaltet.",
    bad_plan: quoting("So lässt sich das Modell nicht verteilen."),
    bad_ticket: "Diese Einladung ist unvollständig oder keine von HiveMind. Bitte ganz kopieren, von „hivemind“ bis zum Ende.",
    broke_off: "Die Verbindung zum anderen Rechner ist abgebrochen. Bitte erneut versuchen.",
    browsers: quoting("HiveMind ließ sich nicht für Browser öffnen."),
    browsers_off: "HiveMind ist nicht für Browser geöffnet.",
    busy: "Dieses Modell antwortet gerade. Bitte die Antwort stoppen oder ihr Ende abwarten.",
    context_length_exceeded: "Das ist länger, als dieses Modell lesen kann. Bitte kürzen oder einen neuen Chat beginnen.",
    conversations: quoting("Der Chat ließ sich nicht lesen."),
    data_folder: quoting("Der Datenordner ist nicht verwendbar."),
    failed: quoting("Das ist nicht gelungen."),
    invalid_value: quoting("Eine Angabe ist ungültig."),
    link_used: "Dieser Link wurde bereits benutzt. Bitte einen neuen holen.",
    malformed_token: "Das ist kein Token. Bitte ganz kopieren, ohne Leerzeichen.",
    missing_right: "Dieser Schlüssel berechtigt nicht dazu.",
    model_denied: quoting("Hugging Face gibt dieses Modell nicht heraus."),
    model_missing_there: quoting("Einem Rechner fehlt dieses Modell."),
    model_not_fetched: quoting("Das Modell konnte nicht geholt werden."),
    model_not_found: "Dieses Modell ist nicht auf diesem Rechner.",
    model_unusable: quoting("Dieses Modell ist nicht verwendbar."),
    no_plan: quoting("Für dieses Modell ist kein Platz."),
    no_question: "Es gibt keine Frage, die zu beantworten wäre.",
    no_such_conversation: "Diesen Chat gibt es nicht mehr.",
    no_such_machine: "Dieser Rechner ist hier nicht bekannt.",
    no_such_message: "Diese Nachricht gibt es nicht mehr.",
    no_such_peer: "Dieser Rechner ist hier nicht bekannt.",
    no_such_token: "Diesen Schlüssel gibt es nicht mehr.",
    not_a_link: "Dieser Link lässt sich nicht öffnen.",
    not_approved: "Dieser Rechner ist nicht zugelassen.",
    not_denied: quoting("Die Anfrage ließ sich nicht ablehnen."),
    not_exported: quoting("Der Chat ließ sich nicht exportieren."),
    not_kept: quoting("Das ließ sich nicht sichern."),
    not_loaded: quoting("Das Modell ist nicht geladen."),
    not_opened: quoting("Das ließ sich nicht öffnen."),
    not_pending: "Dieser Rechner möchte nicht mehr beitreten. Bitte neu koppeln.",
    not_read: quoting("Das ließ sich nicht lesen."),
    not_removable: "Dieses Modell ist eingebaut oder wurde nicht von HiveMind geladen. Es lässt sich hier nicht löschen.",
    not_repaired: quoting("Das hat nicht geholfen."),
    not_restored: quoting("Der Rechner ließ sich nicht wiederherstellen."),
    not_saved: quoting("Die Änderung gilt nur bis zum nächsten Start."),
    not_shown: quoting("Der Ordner ließ sich nicht zeigen."),
    not_stopped: "Das andere HiveMind läuft noch. Bitte gleich noch einmal versuchen.",
    nothing_to_continue: "Diese Antwort ist vollständig. Es gibt nichts fortzusetzen.",
    open_at_login: quoting("Das Öffnen bei der Anmeldung ließ sich nicht ändern."),
    refused: quoting("Der andere Rechner hat abgelehnt."),
    revoked: "Dieser Schlüssel wurde entzogen oder erneuert.",
    settings: quoting("Die Einstellungen ließen sich nicht ändern."),
    several_models: quoting("Dort sind mehrere Modelle."),
    stopping: "HiveMind wird gerade beendet.",
    taken: "Dieser Name ist schon vergeben.",
    token: quoting("Der Schlüssel ließ sich nicht ändern."),
    too_few_machines: quoting("Dafür sind zu wenige Rechner da."),
    too_long: "Das ist zu lang. Bitte kürzen.",
    unauthorized: "Dafür fehlt ein gültiger Schlüssel.",
    unreachable: quoting("Der andere Rechner ist nicht zu erreichen."),
    wrong_code: "Das ist nicht der Code, den beide Rechner zeigen.",
  },
};

/** What a file of the data folder holds, and what a start without it means. */
function holds(file: string): { what: string; without: string } {
  switch (file) {
    case "config.toml":
      return { what: "Ihre Einstellungen", without: "Alle Einstellungen haben dann ihre Standardwerte." };
    case "conversations.sqlite":
      return { what: "Ihre Chats", without: "Die Liste der Chats ist dann leer." };
    case "peers.json":
      return { what: "Ihre Rechner", without: "Die Rechner sind dann neu zu koppeln." };
    default:
      return { what: "die Daten", without: "Ihr Inhalt fehlt dann." };
  }
}

function sentence(why: string, hint: string | null): string {
  const said = why.charAt(0).toUpperCase() + why.slice(1);
  return hint ? `${said}. ${hint}` : said;
}
