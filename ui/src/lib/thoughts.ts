/**
 * Splits an answer into what the model thought and what it said. Models mark their thoughts in several ways; some begin
 * them in the prompt, so that only the end is in the answer.
 */

export interface Part {
  thought: boolean;
  text: string;
  /** Whether the text may still grow: a thought without an end, or what was said last. */
  open: boolean;
}

/** How thoughts begin, and how each of them ends. */
const MARKS: [begin: string, end: string][] = [
  ["<think>", "</think>"],
  ["<thinking>", "</thinking>"],
  ["<thought>", "</thought>"],
  ["<reasoning>", "</reasoning>"],
  ["<seed:think>", "</seed:think>"],
  ["[THINK]", "[/THINK]"],
  ["◁think▷", "◁/think▷"],
  ["<|START_THINKING|>", "<|END_THINKING|>"],
  ["<|channel|>analysis<|message|>", "<|end|>"],
  ["<|channel|>commentary<|message|>", "<|end|>"],
  ["<|channel>thought\n", "<channel|>"],
];

/** What stands before the answer proper in the format of gpt-oss, and what ends it. */
const FINAL = /^(?:<\|start\|>assistant)?(?:<\|channel\|>final)?<\|message\|>/;
const START = "<|start|>assistant";
const LAST = /<\|(?:end|return)\|>\s*$/;

/** The same format without its special tokens. */
const BARE = /^analysis(?=[A-Z"'(])/;
const BARE_END = "assistantfinal";

/** The parts of an answer, in order. `growing` says that more text may come. */
export function parts(text: string, growing: boolean): Part[] {
  const found: Part[] = [];
  let rest = text;
  const take = (begin: number, end: string) => {
    const at = rest.indexOf(end, begin);
    const thought = rest.slice(begin, at < 0 ? undefined : at).trim();
    if (thought || at < 0) found.push({ thought: true, text: thought, open: at < 0 });
    rest = at < 0 ? "" : rest.slice(at + end.length);
  };
  const early = earlyEnd(text);
  if (BARE.test(text)) take("analysis".length, BARE_END);
  else if (early) take(0, early);
  for (;;) {
    const trimmed = rest.trimStart();
    const at = trimmed.startsWith(START + "<|channel|>") ? START.length : 0;
    const mark = MARKS.find(([begin]) => trimmed.startsWith(begin, at));
    if (!mark) break;
    rest = trimmed;
    take(at + mark[0].length, mark[1]);
  }
  const said = rest === text ? text : rest.trimStart();
  const words = FINAL.test(said) ? said.replace(FINAL, "").replace(LAST, "") : said;
  if (found.at(-1)?.open) return found;
  // A mark that is still arriving is not shown.
  const arriving = growing && words !== "" && [START, ...MARKS.map(([begin]) => begin)].some((mark) => mark.startsWith(words.trim()));
  if (words.trim() && !arriving) found.push({ thought: false, text: words, open: true });
  return found;
}

/** The end of a thought that began in the prompt, if the text has one outside of code. */
function earlyEnd(text: string): string | undefined {
  const [end] = /<\/(?:think|thinking|seed:think)>(?=[ \t]*(?:\n|$))/.exec(text) ?? [];
  const at = end === undefined ? -1 : text.indexOf(end);
  if (end === undefined || /<(?:think|thinking|seed:think)>/.test(text.slice(0, at))) return undefined;
  const fences = text.slice(0, at).match(/^ {0,3}(?:```|~~~)/gm)?.length ?? 0;
  return fences % 2 === 0 ? end : undefined;
}
