/** Cut, copy and paste, within the click that asked for them: later, a web view refuses. */

/** Copies a text; false if the web view refuses. */
export async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** Cuts or copies the selection; the selected text is written directly if the web view does not know the command. */
export async function take(how: "cut" | "copy", selected: string): Promise<boolean> {
  if (document.execCommand?.(how)) return true;
  if (!(await copy(selected))) return false;
  if (how === "cut") document.execCommand?.("delete");
  return true;
}

/** Pastes into a field that has the focus, as its own key does: the field's handlers see it, and it can be undone. */
export async function paste(field: HTMLElement): Promise<boolean> {
  if (document.execCommand?.("paste")) return true;
  try {
    const text = await navigator.clipboard.readText();
    const clipboardData = new DataTransfer();
    clipboardData.setData("text/plain", text);
    const event = new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
    if (field.dispatchEvent(event)) document.execCommand("insertText", false, text);
    return true;
  } catch {
    return false;
  }
}
