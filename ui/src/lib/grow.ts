/** Makes a text field as high as its text: `{@attach grow(() => text)}`. Its style says how high at most. */

export function grow(text: () => string): (field: HTMLTextAreaElement) => void {
  return (field) => {
    void text();
    field.style.height = "auto";
    // The border is part of the height and not of the scroll height.
    field.style.height = `${field.scrollHeight + field.offsetHeight - field.clientHeight}px`;
  };
}
