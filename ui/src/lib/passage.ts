/** Where words that were searched for are in an element, and showing them there. */

/** The name of their colour in style sheets. */
const HIGHLIGHT = "sought";

/** A piece of text, and how many letters come before it. */
interface Piece {
  node: Node;
  start: number;
}

/** Lowercase, as the node searches, with every letter in its place. */
function fold(text: string): string {
  return Array.from(text, (letter) => {
    const lower = letter.toLowerCase();
    return lower.length === letter.length ? lower : letter;
  }).join("");
}

/** Where the words begin and end in a text: together, or else the first of them that is there. */
export function place(text: string, words: string): [start: number, end: number] | null {
  const [folded, wanted] = [fold(text), fold(words.trim())];
  for (const part of [wanted, ...wanted.split(/\s+/)]) {
    const at = part ? folded.indexOf(part) : -1;
    if (at >= 0) return [at, at + part.length];
  }
  return null;
}

/** The first place of the words in the element's text, however many elements it runs through. */
export function passage(within: Element, words: string): Range | null {
  const walker = document.createTreeWalker(within, NodeFilter.SHOW_TEXT);
  const pieces: Piece[] = [];
  let text = "";
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    pieces.push({ node, start: text.length });
    text += node.nodeValue ?? "";
  }
  const found = place(text, words);
  if (!found) return null;
  const range = document.createRange();
  const letter = (index: number): [Node, number] => {
    const [piece] = pieces.filter(({ start }) => start <= index).slice(-1) as [Piece];
    return [piece.node, index - piece.start];
  };
  range.setStart(...letter(found[0]));
  const [node, last] = letter(found[1] - 1);
  range.setEnd(node, last + 1);
  return range;
}

/** Marks a passage and scrolls it to the middle of what scrolls; returns what takes the mark away. */
export function show(range: Range): () => void {
  const scroller = range.startContainer.parentElement?.closest<HTMLElement>("[role=log]");
  if (scroller) {
    const [found, seen] = [range.getBoundingClientRect(), scroller.getBoundingClientRect()];
    scroller.scrollTop += found.top + found.height / 2 - (seen.top + seen.height / 2);
  }
  // Older web views do not mark, but scroll.
  if (typeof Highlight === "undefined") return () => {};
  const mark = new Highlight(range);
  CSS.highlights.set(HIGHLIGHT, mark);
  return () => {
    if (CSS.highlights.get(HIGHLIGHT) === mark) CSS.highlights.delete(HIGHLIGHT);
  };
}
