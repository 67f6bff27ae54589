/** All user-visible text, in English. `words.de.ts` has it in German, and `words` is what the window speaks. */

import type { Accent, Cause, Finding, Fit, Language, Look, Refused, Remedy } from "./bindings";
import type { Said } from "./said";
import { amount, date, day, decimal, gigabytes, milliseconds, parameters, rate, several, speed, time, together, typed, untyped, writeAs } from "./numbers";

export { amount, day, decimal, gigabytes, milliseconds, rate, speed, time, typed, untyped };

/** Layers counted from 1: `[0, 18)` is "layers 1–18"; several ranges are "layers 1–4, 10". */
export function layers(ranges: [number, number][]): string {
  const range = ([start, end]: [number, number]) => (end - start === 1 ? `${end}` : `${start + 1}–${end}`);
  const count = ranges.reduce((sum, [start, end]) => sum + end - start, 0);
  return words.layers(count, ranges.map(range).join(", "));
}

/** The section of the list that a conversation belongs to. */
export function age(updated_s: number, now_s: number): string {
  const midnight = new Date(now_s * 1000).setHours(0, 0, 0, 0) / 1000;
  if (updated_s >= midnight) return words.today;
  return updated_s >= midnight - 6 * 86_400 ? words.thisWeek : words.older;
}

/** "14:02", "yesterday 14:02", "26 November": a past moment, as near as it needs to be told. */
export function moment(at_s: number, now_s: number = Date.now() / 1000): string {
  const [at, now] = [new Date(at_s * 1000), new Date(now_s * 1000)];
  const days = Math.round((new Date(now).setHours(0, 0, 0, 0) - new Date(at).setHours(0, 0, 0, 0)) / 86_400_000);
  const clock = time(at.toISOString());
  if (days <= 0) return clock;
  return days === 1 ? words.yesterday(clock) : date(at, now);
}

/** "away since 14:02", or "away" if it is not known since when. */
export function away(since_s: number | null): string {
  return since_s === null ? words.away : words.awaySince(moment(since_s));
}

export const english = {
  layers: (count: number, which: string) => `${count === 1 ? "layer" : "layers"} ${which}`,
  thisWeek: "This week",
  older: "Older",
  yesterday: (time: string) => `yesterday ${time}`,
  away: "away",
  awaySince: (moment: string) => `away since ${moment}`,
  share: "Share compute",
  machines: "Machines",
  models: "Models",
  chat: "Chat",
  settings: "Settings",
  openChat: "Open Chat",
  quit: "Quit",
  memoryHere: "Memory on this machine",
  swarmGives: (bytes: number) => (bytes > 0 ? `${gigabytes(bytes)} available in the swarm` : "No machine is sharing memory"),
  wantsToJoin: (name: string) => `${name} wants to join`,
  waitsFor: (name: string) => `Waiting for ${name}`,
  codeHint: "Approve only if the other machine shows the same six digits.",
  approve: "Approve",
  deny: "Deny",
  noModel: "No model loaded. It loads when you ask something.",
  lastMinute: "Speed in the last minute",
  newChat: "New chat",
  search: "Search",
  message: "Message…",
  send: "Send",
  stop: "Stop",
  copy: "Copy",
  copied: "Copied",
  again: "Answer again",
  edit: "Edit",
  goOn: "Continue",
  reading: (tokens: number, of: number) => `Reading: ${decimal(tokens)} of ${decimal(of)} tokens`,
  remove: "Delete",
  rename: "Rename",
  openFolder: "Open Folder",
  welcome: "Welcome to HiveMind",
  welcomeNoModel: "No model is here yet. Get one in Models, then ask something below.",
  welcomeAsk: "Ask something below. A small model is built in, so you can start right away, even with one machine.",
  stepAsk: "1  Ask",
  stepShare: "2  Share",
  stepAdd: "3  Add a machine",
  welcomeShare: "Lend spare memory to your other machines. Your own apps come first, and only machines you approve can join.",
  welcomeMachines: "Open HiveMind on another machine on this network. When both show the same six digits, approve it. You only do this once.",
  nothingYet: "Ask something. Everything stays on your machines.",
  load: "Load",
  loading: "Loading…",
  unload: "Unload",
  pauseDownload: "Pause",
  resumeDownload: "Resume",
  huggingFace: "Hugging Face",
  hubToken: "Hugging Face token",
  hubTokenIs: "A token for models whose licence you have accepted there. It stays on this machine, and only your own downloads use it.",
  tokenStored: "A token is saved",
  tokenOfEnvironment: "Using HF_TOKEN",
  saveToken: "Save token",
  forgetToken: "Remove token",
  makeToken: "Make a token",
  openItsPage: "Open its page",
  pinnedMeans: "A pinned model stays loaded, and is never deleted to free space.",
  alsoCalled: (names: string[]) => `Also called ${names.join(", ")}`,
  withAdapter: (names: string[]) => `With an adapter: ${names.join(", ")}`,
  removeModel: "Delete…",
  removeFromDisk: "Delete it from this disk?",
  takeOffList: "Remove it from the list? Its files stay where they are.",
  cancel: "Cancel",
  layersLoaded: (layers: number, of: number) => `${layers} of ${of} layers`,
  gettingReady: "Getting ready. The first time on an NVIDIA card, this takes a minute.",
  fetched: (done: number, of: number) => `Fetching ${gigabytes(done)} of ${gigabytes(of)}`,
  swarmHas: (bytes: number, machines: number) =>
    machines === 0
      ? "No machine is sharing memory; models run on this machine only."
      : `${gigabytes(bytes)} available on ${several(machines, "machine", "machines")}. Each model shows where it would run.`,
  fits: (needs: number, has: number, machines: number) =>
    machines === 0
      ? `Uses ${gigabytes(needs)} on this machine`
      : `Uses ${gigabytes(needs)}; ${gigabytes(has)} available on ${several(machines, "machine", "machines")}`,
  exported: (file: string) => `Saved as ${file}`,
  showInFolder: "Show in Folder",
  copyChat: "Copy Chat",
  export: "Export",
  editDropped: "The edit was discarded",
  deleted: (title: string) => `Deleted “${title}”`,
  undo: "Undo",
  dismiss: "Dismiss",
  skip: "Skip",
  openAtLogin: "Open at login",
  askNotify: "Notify you when a machine wants to join, even when no window is open?",
  yes: "Yes",
  no: "No",
  saved: "Saved",
  restart: "Restart",
  updateCheck: "Check for Updates",
  updateInstall: "Install",
  updateLooking: "Checking for updates…",
  updateCurrent: "HiveMind is up to date.",
  updateFound: (version: string) => `Version ${version} is available.`,
  updateFetching: (version: string, percent: number) => `Downloading version ${version}: ${percent}%`,
  updateReady: (version: string) => `Version ${version} is ready. Restart to update; your other machines take over meanwhile.`,
  noMatch: "No matches",
  looksForAPlace: "Checking where it fits…",
  noModels: "No models yet.",
  about: (speed: string) => `About ${speed}`,
  pauseSharing: "Pause sharing",
  forAnHour: "For an hour",
  endPause: "Resume sharing",
  whenToShare: "When to share",
  onlyOnPower: "Only on mains power",
  onlyWhenIdle: "Only when idle for",
  always: "Any time",
  diskLimit: "Disk limit for fetched models",
  unloadAfter: "Unload models unused for",
  never: "Never",
  neverMore: "Memory limit",
  sendAtMost: "Upload limit to other machines",
  downloadAtMost: "Download limit from Hugging Face",
  noLimit: "No limit",
  thisApp: "This app",
  accent: "Accent colour",
  accents: {
    honey: "Honey",
    blue: "Blue",
    purple: "Purple",
    pink: "Pink",
    red: "Red",
    green: "Green",
    graphite: "Graphite",
  } satisfies Record<Accent, string>,
  notify: "Notify of join requests and finished answers",
  network: "Network",
  shownName: "Name on other machines",
  lanOnly: "Stay on the local network",
  relay: "Relay",
  apiAddress: "Local API address",
  bindAddress: "Listening address",
  anyAddress: "Automatic",
  model: "Model",
  starter: "Starter model",
  panel: "Instructions and sampling",
  instructions: "Instructions for this conversation",
  youAre: "You are …",
  temperature: "Temperature",
  topP: "Top-p",
  thinking: "Thinking",
  effort: "Effort",
  modelDecides: "Model default",
  on: "On",
  off: "Off",
  efforts: { low: "Low", medium: "Medium", high: "High" },
  otherOptions: "Other options",
  likeOption: "name=value, …",
  messages: "Messages",
  you: "You",
  answer: "Answer",
  brokeOff: (why: string) => `The answer was interrupted: ${why}. Nothing is lost; choose Continue to pick up where it stopped.`,
  conversations: "Conversations",
  searchConversations: "Search conversations",
  standsBy: "Standby for",
  otherPaths: "Other routes",
  thisMachine: "This machine",
  own: (name: string) => `${name} (this machine)`,
  anotherName: "Another name",
  removeMachine: "Remove",
  mayUseMemory: "May use this machine's memory",
  maySeePrompts: "May see your prompts",
  limits: (bytes: number | null, answers: number | null) =>
    [
      bytes === null ? "" : `At most ${gigabytes(bytes)} here. `,
      answers === null ? "" : `At most ${several(answers, "answer", "answers")} at a time.`,
    ].join(""),
  whyThisPlan: "Why this plan",
  nearby: "Nearby",
  add: "Add…",
  elsewhere: "Connect a remote machine",
  invitationFrom: "Paste its invitation",
  invitation: "Invitation",
  join: "Join",
  copiesInvitation: "Copies a one-time invitation, valid for 24 hours",
  yourInvitation: "Your invitation, ready to copy",
  copyInvitation: "Copy invitation",
  ring: "The ring of machines",
  noLayers: "no layers",
  holds: (who: string, layers: string, state: string) => `${who}: ${layers}, ${state}`,
  shares: (bytes: number) => `shares ${gigabytes(bytes)}`,
  thereAndBack: (kind: string, time: string) => `${kind}, ${time} round trip`,
  updates: "Updates",
  of: (part: string, whole: string) => `${part} of ${whole}`,
  ofModel: (bytes: number) => `model ${gigabytes(bytes)}`,
  given: "shared",
  free: "free",
  ofSystem: (bytes: number) => `system ${gigabytes(bytes)}`,
  recommended: (bytes: number) => `Recommended: ${gigabytes(bytes)}`,
  mostToGive: "Maximum memory to share",
  speedNow: (speed: string) => `Speed in the last minute: ${speed} now`,
  waiting: (requests: number) => `${requests} waiting`,
  inMemory: "Loaded on:",
  onDisk: (bytes: number, whole: number | null, others: string[]) =>
    `${whole === null ? "" : `${gigabytes(bytes)} of `}${gigabytes(whole ?? bytes)} on disk${others.length ? `, also on ${together(others)}` : ""}`,
  approvedWith: "Approved with code",
  happened: "Activity on this machine",
  did: (name: string) => `What ${name} did on this machine`,
  nothingHappened: "No activity yet.",
  key: "Fingerprint",
  chip: "Chip",
  gives: "Shares",
  holdsLayers: "Holds",
  alone: "Speed alone (starter model)",
  link: "Link",
  now: "Status",
  stopKey: "Esc",
  givesNothing: "not sharing",
  approvedHere: "Approved here. Now approve it on the other machine.",
  answeredBy: (tokens_per_s: number | null, machines: string[], first_s: number | null) =>
    [
      tokens_per_s ? speed(tokens_per_s) : "",
      together(machines),
      first_s === null ? "" : `${decimal(first_s, 1)} s to first word`,
    ]
      .filter((part) => part)
      .join(" · "),
  computed: (machines: string[], tokens: number) => `${together(machines)}: ${several(tokens, "token", "tokens")}.`,
  tookOver: (why: string, pause_s: number) => `${why.replace(/[.…]+$/, "")}; ${decimal(pause_s, 1)} s, no word lost.`,
  tryAgain: "Try again",
  jump: "Jump to",
  jumpTo: "Chat, page or words",
  contextUsed: (percent: number) => `${percent}% of this model’s context`,
  contextFull: (percent: number) => `This chat fills ${percent}% of the model’s context. Start a new chat before it is full.`,
  quickAsk: "Ask something…",
  newQuestion: "New question",
  openInChat: "Open in Chat",
  versionBefore: "Previous version",
  versionAfter: "Next version",
  notSaved: (why: string) => `The answer is not saved yet: ${why}. Trying again…`,
  newestBelow: "↓ Newest",
  /** A button's action on a chat, such as "Pin". */
  doTo: (does: string, title: string) => `${does} ${title}`,
  pin: "Pin",
  unpin: "Unpin",
  archive: "Archive",
  unarchive: "Move out of the archive",
  archived: "Archived",
  pinned: "Pinned",
  answeringNow: "Answering…",
  // The parts of an answer.
  thinkingNow: "Thinking…",
  thoughts: "Thoughts",
  thoughtFor: (seconds: number) => {
    const whole = Math.max(1, Math.round(seconds));
    return whole < 60 ? `Thought for ${whole} s` : `Thought for ${Math.floor(whole / 60)} min ${whole % 60} s`;
  },
  table: "Table",
  formula: "Formula",
  code: "Code",
  wrap: "Wrap",
  diagram: "Diagram",
  diagramOf: (kind: string) => `Diagram (${kind})`,
  done: "Done",
  notDone: "Not done",
  noSuchOption: (name: string) => `this model has no option “${name}”`,
  // Links, menus and shortcuts.
  openSite: (site: string) => `Open ${site} in your browser?`,
  writeTo: (address: string) => `Write to ${address} in your mail program?`,
  address: "Address",
  open: "Open",
  close: "Close",
  openLink: "Open Link…",
  copyLink: "Copy Link",
  copyAddress: "Copy Address",
  alwaysOpen: "Do not ask again for this site",
  askAgain: "Ask Again for This Site",
  leadsElsewhere: (site: string) => `The link’s text says ${site}, but it leads elsewhere.`,
  foreignLetters: "This address uses look-alike letters. Check that it is the site you mean.",
  menu: "Menu",
  cut: "Cut",
  paste: "Paste",
  selectAll: "Select All",
  useKeys: (mac: boolean) => `The menu can’t reach the clipboard here. Use ${mac ? "⌘" : "Ctrl+"}X, C or V.`,
  skipToMessage: "Skip to message",
  skipToPage: "Skip to page",
  sharingNow: "Sharing",
  computingNow: "Computing",
  pausedNow: "Paused",
  notSharing: "Not sharing",
  shortcutList: "Keyboard shortcuts",
  or: "or",
  textSizeNow: (percent: number) => `Text size ${percent}%`,
  control: "Ctrl",
  shift: "Shift",
  shortcutGroups: { pages: "Pages", chats: "Chats", message: "Message", text: "Text size", window: "Window" },
  shortcuts: {
    chat: "Chat",
    machines: "Machines",
    models: "Models",
    settings: "Settings",
    newChat: "New chat",
    search: "Search chats",
    jump: "Jump to a chat or a page",
    send: "Send",
    line: "New line",
    stop: "Stop the answer",
    bigger: "Larger",
    smaller: "Smaller",
    usual: "Default",
    menu: "Context menu",
    list: "This list",
    hide: "Close window",
    quit: "Quit HiveMind",
  },
  // Files in a message.
  attach: "Attach files",
  attached: "Attached files",
  attachedNow: (names: string[]) => `Attached: ${names.join(", ")}`,
  detachedNow: (name: string) => `Removed ${name}`,
  detach: (name: string) => `Remove ${name}`,
  dropHere: "Drop files to attach them",
  pastedText: "Pasted text",
  insertAsText: "Insert as text",
  fileSize: (bytes: number) => (bytes < 1000 ? several(bytes, "byte", "bytes") : `${decimal(bytes / 1000, bytes < 10_000 ? 1 : 0)} kB`),
  aboutTokens: (tokens: number) => `about ${decimal(tokens)} ${tokens === 1 ? "token" : "tokens"}`,
  tooLong: (over: number) => `Too long for any model here, by about ${decimal(over)} characters. Paste a shorter part.`,
  fileTooLong: (name: string, over: number) =>
    `${name} doesn’t fit: this message would be too long by about ${decimal(over)} characters.`,
  isBinary: (name: string) => `${name} isn’t a text file, so it can’t be attached.`,
  isUnreadable: (name: string) => `${name} can’t be read. If it’s a folder, attach its files instead.`,
  leftBehind: (name: string) => `${name} wasn’t attached, because you switched to another chat.`,
  cannotSee: "This model can’t see pictures. It isn’t sent.",
  exactTokens: (tokens: number) => several(tokens, "token", "tokens"),
  pages: (pages: number) => several(pages, "page", "pages"),
  readingFile: (name: string, page: number, pages: number) =>
    pages > 0 ? `Reading ${name}: page ${decimal(page)} of ${decimal(pages)}` : `Reading ${name}…`,
  stopReading: (name: string) => `Stop reading ${name}`,
  isScan: (name: string) => `${name} has pictures of pages but no text. Run text recognition (OCR) on it, then attach the result.`,
  isLocked: (name: string) => `${name} needs a password. Save a copy without one, and attach that.`,
  isDamaged: (name: string) => `${name} is damaged or isn’t a PDF.`,
  tooManyPages: (name: string, pages: number, most: number) =>
    `${name} has ${decimal(pages)} pages; at most ${decimal(most)} can be read. Attach a part of it.`,
  tooHeavy: (name: string, most: number) => `${name} is larger than ${gigabytes(most)}. Attach a part of it.`,
  moreThanFits: (name: string, page: number, pages: number) =>
    `${name} doesn’t fit: one message holds about the first ${decimal(page)} of its ${decimal(pages)} pages. Attach a part of it.`,
  editText: (name: string) => `Text of ${name}`,
  // The shortcut for a question.
  askAnywhere: "Ask from anywhere",
  pressKeys: "Press keys…",
  noShortcut: "Off",
  removeShortcut: "Remove the shortcut",
  askAnywhereIs: "Opens a field for a question over any program. Click the field and press keys, such as Ctrl+Shift+Space.",
  // A new chat that continues a full one.
  newChatWithSummary: "New chat with a summary",
  summaryOf: (title: string) => `Summary of “${title}”`,
  summarising: (title: string) => `Summarising “${title}”…`,
  summaryReady: "The summary goes with your next message. Open it to read or change it.",
  summaryOfNewest: (used: number, of: number) =>
    `The chat was too long to summarise at once. The summary covers ${used < 1 ? "the end of its last message" : `its last ${several(used, "message", "messages")} of ${decimal(of)}`}.`,
  noSummary: (why: string) => `No summary was made: ${why.replace(/[.…]+$/, "")}. The chat itself is unchanged.`,
  nothingSaid: "the model wrote nothing",
  // Machines and the popover.
  joined: (names: string[]) => `${names.join(" and ")} ${names.length === 1 ? "is" : "are"} in.`,
  removeAsks: (name: string) =>
    `Remove ${name}? It will no longer compute for you. You can undo this for 30 seconds; after that, you have to pair again.`,
  removeAsk: "Remove…",
  removed: (name: string) => `Removed ${name}`,
  didToday: (answers: number, tokens: number) => `${several(answers, "answer", "answers")}, ${decimal(tokens)} tokens`,
  today: "Today",
  showCode: "Show QR code",
  hideCode: "Hide QR code",
  codeOf: "QR code of your invitation",
  worksOnce: "Works once, within 24 hours.",
  wouldShare: (bytes: number) => `Would share up to ${gigabytes(bytes)}`,
  notShared: "not shared",
  // Settings, start and failures of it.
  afterRestart: "Takes effect after a restart.",
  minutes: "minutes",
  megabits: "Mbit/s",
  unitOf: (label: string) => `${label}: unit`,
  percent: (percent: number) => `${percent}%`,
  look: "Look",
  theme: "Theme",
  browser: "Browser and phone",
  browserIs: "Chat and see your machines in a browser, also on your phone. Each browser gets a key of its own, which you can revoke above.",
  browserWhere: "Open HiveMind in a browser",
  browserPlace: (place: "off" | "here" | "network"): string =>
    place === "off" ? "Off" : place === "here" ? "On this machine" : "On this network",
  browserLink: "Make a link",
  browserLinkMade: "Link to HiveMind",
  browserClosed: "Browsers can’t be let in right now. Turn this off and on again.",
  browserCode: "QR code of the link",
  browserOnce: (minutes: number) => `Works once, in one browser, for ${minutes} minutes.`,
  browserWarns:
    "The browser warns that it does not know this machine. Continue only if the certificate it shows has this SHA-256 fingerprint:",
  enter: "This browser is not connected",
  keyRevoked: "Its key was revoked.",
  enterHow: "In HiveMind on your machine, open Settings, choose Browser and phone, and open the link or scan the code.",
  language: "Language",
  systemLanguage: "Automatic",
  looks: { automatic: "Automatic", light: "Light", dark: "Dark" } satisfies Record<Look, string>,
  textSize: "Text size",
  defaultModel: "Model for new chats",
  builtInModel: "Built-in model",
  relays: { none: "None", public: "Public", own: "Your own" },
  relayIs: "A relay connects machines on different networks. It can’t read their data.",
  noRelayOnLan: "Not used on the local network.",
  relayUrl: "Relay URL",
  webAddress: "https://",
  data: "Data",
  dataFolder: "Data folder",
  logFolder: "Activity log",
  openLog: "Open Log",
  resetSettings: "Reset settings",
  resetDots: "Reset…",
  resetAsk: "Reset all settings to their defaults? Chats, models and paired machines stay.",
  resetNow: "Reset",
  aboutApp: "About",
  versions: (version: string, webView: string | null, system: string) =>
    `HiveMind ${version} · ${webView ? `WebKit ${webView} · ` : ""}${system}`,
  refused: (refused: Refused): string => {
    switch (refused.kind) {
      case "whole":
        return `Enter a whole number from ${decimal(refused.least)} to ${decimal(refused.most)}.`;
      case "memory":
        return refused.most === null
          ? `Enter ${gigabytes(refused.least)} or more.`
          : `Enter ${gigabytes(refused.least)} to ${gigabytes(refused.most)}. To share nothing, turn sharing off.`;
      case "name":
        return `Use at most ${refused.most} characters.`;
      case "address":
        return "Enter an address with a port, such as 0.0.0.0:4484.";
      case "loopback":
        return "Enter an address of this machine with a port, such as 127.0.0.1:4483.";
      case "relay":
        return "Enter a URL, such as https://relay.example.org.";
      case "shortcut":
        return "Press a key together with Ctrl, Alt or ⌘, or a function key.";
      case "shortcut_taken":
        return "Another program uses these keys. Choose others.";
      case "shortcut_not_here":
        return "This desktop doesn’t let apps use keys everywhere (it runs Wayland). In an X11 session, it works.";
    }
  },
  api: "API for programs",
  apiIs: "Programs on this machine can use your models through an OpenAI-compatible API. Each needs a key.",
  apiOff: (why: string) => `Off: ${why}`,
  useAnotherPortNow: "Use Another Port and Restart",
  keys: "Keys",
  newKey: "New key",
  program: "Program’s name",
  createKey: "Create",
  keyOf: (name: string) => `key for ${name}`,
  shownOnce: (name: string) => `Copy the key for ${name} now. It isn’t shown again.`,
  yourKey: "YOUR_KEY",
  example: "Example",
  exampleQuestion: "Hello",
  revoke: "Revoke",
  revokeKeyOf: (name: string) => `Revoke the key for ${name}`,
  revokeAsk: "The program loses access.",
  revokeNow: "Revoke",
  lastUsed: (daysAgo: number | null) =>
    daysAgo === null ? "Never used" : daysAgo === 0 ? "Used today" : daysAgo === 1 ? "Used yesterday" : `Used ${daysAgo} days ago`,
  copyThat: (what: string) => `Copy ${what.charAt(0).toLowerCase()}${what.slice(1)}`,
  notCopied: "Can’t copy",
  restartToUpdate: "Restart to Update",
  openModels: "Open Models Folder",
  lookAgain: "Look Again",
  needsMemory: (bytes: number) => `Needs ${gigabytes(bytes)} of memory`,
  usesMemory: (bytes: number) => `Uses ${gigabytes(bytes)} of memory`,
  takesDisk: (size: string) => `${size} on disk`,
  unusableModels: "Can’t be used",
  sentence: (why: string) => `${why.charAt(0).toUpperCase()}${why.slice(1)}${/[.!?…]$/.test(why) ? "" : "."}`,
  cannotLoad: "HiveMind can’t load this model. Its files are damaged or incomplete, or it’s of a kind that isn’t supported yet.",
  details: "Details",
  downloadAgain: "If it should work, delete it and download it again.",
  // Models that are added by hand.
  addModel: "Add a file or folder…",
  dropModel: "Drop to add this model",
  readingModels: (names: string[]) => `Reading ${names.join(", ")}…`,
  addedModels: (names: string[]) => `Added ${names.join(", ")}.`,
  notAdded: (name: string, why: string) => `${name} wasn’t added: ${why}`,
  moreRefused: (more: number) => `${several(more, "more item wasn’t", "more items weren’t")} added.`,
  whereabouts: "HiveMind can’t see where this is. Choose Add a file or folder… instead.",
  notAModel: (name: string, found: Finding) => {
    switch (found.kind) {
      case "parts_missing":
        return `${decimal(found.missing)} of the ${decimal(found.of)} files of ${name} ${found.missing === 1 ? "is" : "are"} missing. Put all of them in one folder.`;
      case "companion":
        return `${name} goes with a model, but isn’t one. Drop the model’s own .gguf file.`;
      case "several":
        return `${name} has several models. Drop one of its .gguf files.`;
      case "no_config":
        return `${name} has weights, but no config.json. Drop a folder with both.`;
      case "no_weights":
        return `${name} has no weights. Drop a folder with config.json and .safetensors files.`;
      case "pickled":
        return `${name} wasn’t opened: .bin, .pt, .pth and .ckpt files can contain code. Look for the model’s .gguf or .safetensors files.`;
      case "gone":
        return `${name} no longer exists.`;
      case "closed":
        return `${name} can’t be read: you don’t have permission to open it.`;
      case "unnameable":
        return `${name} can’t be loaded with this name. Rename it so that the name has no trailing space and no invalid characters.`;
      default:
        return `${name} is not a model. Drop a .gguf file, or a folder with config.json and .safetensors files.`;
    }
  },
  // Models that could be fetched.
  findModel: "Find a model",
  searchModels: "Search models",
  onlyModels: "Show only",
  modelFilters: { fits: "Fits now", code: "Code", tools: "Tools", thinking: "Thinking" },
  parameters: (all: number, active: number | null) => `${parameters(all)}${active === null ? "" : `, ${parameters(active)} active`}`,
  licence: (name: string) => `Licence: ${name}`,
  readsUpTo: (tokens: number) => `Up to ${several(tokens, "token", "tokens")}`,
  goodFor: (what: string) => `Good for ${what}`,
  /** What models are good for, by the node's words for it. */
  skills: {
    chat: "chat",
    code: "code",
    reasoning: "reasoning",
    tools: "tools",
    languages: "languages",
    "long documents": "long documents",
    "small machines": "small machines",
  } as Record<string, string>,
  variant: (quantization: string, bytes: number, approximate: boolean) => `${quantization} · ${approximate ? "about " : ""}${gigabytes(bytes)}`,
  verdict: (fit: Fit): string => {
    switch (fit.verdict) {
      case "comfortable":
        return "Fits comfortably";
      case "snug":
        return `Tight fit: ${gigabytes(fit.left_bytes)} left on ${fit.machine}`;
      case "needs_more":
        return `Needs ${gigabytes(fit.bytes)} more`;
      default:
        return "";
    }
  },
  get: "Get",
  getAnyway: "Get anyway",
  isLoaded: "Loaded",
  chatWith: "Chat",
  suggested: "A model for this swarm",
  suggests: (name: string) => `You only have the small starter model. ${name} fits your machines well.`,
  getSized: (name: string, size: string) => `Get ${name} (${size})`,
  findAnother: "Find another…",
  pickAnother: "Find a model…",
  moreSizes: (count: number) => several(count, "more size", "more sizes"),
  fewerSizes: "Fewer sizes",
  showMore: "Show more",
  noModelMatches: "No model matches.",
  getFromHub: (name: string) => `Get ${name} from Hugging Face`,
  startFailure: (cause: Cause): { title: string; text: string; detail?: string } => {
    switch (cause.kind) {
      case "in_use":
        return {
          title: "HiveMind is already running",
          text:
            cause.process === null
              ? `Another HiveMind is using this data (${cause.by}). Quit it, then try again.`
              : `A HiveMind without a window is using this data (${cause.by}). Stop it to start the app, or leave it running and quit.`,
        };
      case "not_writable":
        return {
          title: "HiveMind can’t write its data",
          text: `Make this writable for you, then try again: ${cause.path}`,
          detail: cause.why,
        };
      case "full":
        return { title: "The disk is full", text: `Free some space on the disk of ${cause.path}, then try again.` };
      case "damaged":
        return {
          title: `HiveMind can’t read ${holds(cause.file).what}`,
          text: `${cause.file} is damaged. You can move it aside and start without it: ${holds(cause.file).without} Nothing is deleted.`,
          detail: cause.why,
        };
      case "newer":
        return {
          title: `A newer HiveMind wrote ${holds(cause.file).what}`,
          text: `Update HiveMind, or move ${cause.file} aside and start without it: ${holds(cause.file).without} Nothing is deleted.`,
        };
      case "port":
        return {
          title: "The port for other machines is taken",
          text: "HiveMind can use another port, which your other machines find by themselves.",
          detail: cause.why,
        };
      case "other":
        return { title: "HiveMind couldn’t start", text: sentence(cause.why, cause.hint) };
    }
  },
  remedies: {
    try_again: "Try Again",
    stop_other: "Stop It and Start",
    use_another_port: "Use Another Port",
    move_aside: "Move It Aside and Start",
    open_folder: "Open Folder",
    quit: "Quit",
  } satisfies Record<Remedy, string>,
  stopping: "Stopping…",
  preset: "Preset",
  noPreset: "None",
  noPresets: "None saved yet",
  presetForNew: (name: string) => `${name} · for new chats`,
  presetName: "Name of the preset",
  save: "Save",
  savePreset: "Save as preset…",
  updatePreset: "Update preset",
  renamePreset: "Rename preset…",
  useForNew: "Use for new chats",
  usedForNew: "✓ Used for new chats",
  deletePreset: "Delete preset",
  deletedPreset: (name: string) => `Deleted the preset “${name}”`,
  nameChats: "Let the model name new chats",
  prompts: "Prompts",
  findPrompt: "Find a prompt",
  insertAPrompt: "Insert a prompt (/)",
  noPrompts: "No prompts yet",
  newPrompt: "New prompt…",
  savePrompt: "Save as prompt…",
  editPrompt: (name: string) => `Edit “${name}”`,
  deletePrompt: (name: string) => `Delete “${name}”`,
  deletedPrompt: (name: string) => `Deleted the prompt “${name}”`,
  promptName: "Name",
  promptText: "Text",
  promptFields: "You’re asked to fill in each word in double braces, such as {{language}}.",
  insertPrompt: "Insert",
  /** The prompts that come with HiveMind, by their ID. */
  starters: {
    summarise: { name: "Summarise", text: "Summarise the following text in a few sentences, then list its main points:\n\n{{text}}" },
    explain: { name: "Explain simply", text: "Explain {{subject}} in simple words, with an example from everyday life." },
    review: {
      name: "Review this code",
      text: "Review this code. Name mistakes first, then what could be simpler. Show each change as code:\n\n{{code}}",
    },
    translate: { name: "Translate", text: "Translate the following text into {{language}}. Keep its tone:\n\n{{text}}" },
  } as Record<string, { name: string; text: string }>,
  /** Words for what the node says as a value. Its own are English. */
  said: null as Said | null,
  /** Sentences for errors with these codes; some end with what the node said. Its own are English. */
  problems: {} as Record<string, string | ((said: string) => string)>,
};

/** The text of one language. */
export type Words = typeof english;

/** The words of the window. */
export let words: Words = english;

/** The language that the window speaks, and the one that it is about to. */
export let spoken: Language = "en";
let wanted: Language = "en";

/** Each language, in its own words. */
export const LANGUAGES: Record<Language, string> = { en: "English", de: "Deutsch" };

/** Switches the language. Everything on the screen has to be redrawn. */
export async function speak(language: Language): Promise<void> {
  wanted = language;
  const chosen = language === "de" ? (await import("./words.de")).german : english;
  // Another language may have been chosen meanwhile.
  if (wanted !== language) return;
  words = chosen;
  spoken = language;
  writeAs(language);
  document.documentElement.lang = language;
}

/** The contents of a file in the data folder, and the effect of a start without it. */
function holds(file: string): { what: string; without: string } {
  switch (file) {
    case "config.toml":
      return { what: "your settings", without: "Settings return to their defaults." };
    case "conversations.sqlite":
      return { what: "your chats", without: "The list of chats starts empty." };
    case "peers.json":
      return { what: "your machines", without: "You pair your machines again." };
    default:
      return { what: "its data", without: "Its contents are missing." };
  }
}

function sentence(why: string, hint: string | null): string {
  const said = why.charAt(0).toUpperCase() + why.slice(1);
  return hint ? `${said}. ${hint}` : said;
}
