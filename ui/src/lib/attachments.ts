/**
 * Files in a message: each is a fenced block before the text, so that a model reads it without the node knowing of files.
 *
 * A fence is longer than any inside the file, and its info string names the file. `parse` takes apart what `compose` puts
 * together, whatever the text, the files and their names are.
 */

export interface Attachment {
  name: string;
  text: string;
}

export interface Composed {
  text: string;
  files: Attachment[];
}

/** The first line of a block: the fence, and the file's name. */
const OPENING = /^(`{3,})file=([^`\n]*)\n/;

/** Characters of a name that an info string cannot hold, and the one that escapes them. */
// eslint-disable-next-line no-control-regex
const UNSAFE = /[%`\u0000-\u001f\u007f]/g;

const escapeName = (name: string): string => name.replace(UNSAFE, (sign) => `%${sign.charCodeAt(0).toString(16).padStart(2, "0")}`);
const readName = (name: string): string => name.replace(/%([0-7][0-9a-f])/g, (_, code: string) => String.fromCharCode(parseInt(code, 16)));

function block({ name, text }: Attachment): string {
  let longest = 2;
  for (const [run] of text.matchAll(/`{3,}/g)) longest = Math.max(longest, run.length);
  const fence = "`".repeat(longest + 1);
  return `${fence}file=${escapeName(name)}\n${text}\n${fence}`;
}

/** A message of files and text. Text that itself begins like a file gets a backslash, as Markdown has it. */
export function compose(text: string, files: Attachment[]): string {
  const own = text.replace(/^(\s*)(\\*`{3,}file=)/, "$1\\$2");
  return [...files.map(block), ...(own || files.length === 0 ? [own] : [])].join("\n\n");
}

/** The files and the text of a message. */
export function parse(message: string): Composed {
  const files: Attachment[] = [];
  let rest = message;
  for (let opening = OPENING.exec(rest); opening; opening = OPENING.exec(rest)) {
    const [line, fence = "", name = ""] = opening;
    const closing = `\n${fence}`;
    const end = rest.indexOf(closing, line.length);
    const after = rest.slice(end + closing.length);
    // Without an end, or with more on its last line, it is only text.
    if (end < 0 || (after && !after.startsWith("\n\n"))) break;
    files.push({ name: readName(name), text: rest.slice(line.length, end) });
    rest = after.slice(2);
  }
  return { files, text: rest.replace(/^(\s*)\\(\\*`{3,}file=)/, "$1$2") };
}

/** Characters per token of a usual tokenizer, in Latin letters and in others. */
const LATIN_PER_TOKEN = 4;
const OTHERS_PER_TOKEN = 1.5;

/** Latin letters with their accents, and the punctuation that goes with them. */
const isLatin = (code: number): boolean => code < 0x250 || (code >= 0x1e00 && code < 0x1f00) || (code >= 0x2000 && code < 0x2070);

/** About how many tokens a text has, to two digits. */
export function estimateTokens(text: string): number {
  let latin = 0;
  for (let at = 0; at < text.length; at++) if (isLatin(text.charCodeAt(at))) latin++;
  const tokens = Math.ceil(latin / LATIN_PER_TOKEN + (text.length - latin) / OTHERS_PER_TOKEN);
  return Number(tokens.toPrecision(2));
}
