/** Names of repositories on Hugging Face, as people type them or copy them from a browser. The node reads the same ones. */

/** A repository, and the name by which its model is fetched: with a revision, a quantization or a file, if one was given. */
export type Named = { repository: string; model: string };

const LINK = /^(?:https?:\/\/)?(?:(?:www\.)?huggingface\.co|hf\.co)\/([^?#]+)/i;
const NAME = /^(\w[\w.-]*\/\w[\w.-]*)(?:@\w[\w./-]*)?(?::\w[\w.-]*|\/[^@:]+\.gguf)?$/i;
/** What follows a repository in the link of one of its revisions or files. */
const PLACE = /^([^/]+\/[^/]+)\/(?:tree|blob|resolve)\/(refs\/[^/]+\/[^/]+|[^/]+)\/?(.*)$/;
/** The site's other pages, whose links look like those of models. */
const NO_OWNER = /^(?:blog|collections|datasets|docs|learn|models|organizations|papers|settings|spaces|tasks)\//i;

/** The repository that a text names; undefined if it names none. */
export function named(text: string): Named | undefined {
  const path = LINK.exec(text.trim())?.[1];
  if (path && NO_OWNER.test(path)) return undefined;
  const model = path ? ofLink(path) : text.trim();
  const repository = NAME.exec(model)?.[1];
  return repository ? { repository, model } : undefined;
}

/** The name in a link's path. */
function ofLink(path: string): string {
  let plain = path.replace(/\/+$/, "");
  try {
    plain = decodeURIComponent(plain);
  } catch {
    // Percent signs that code no text are in no name, either.
  }
  const [, repository, revision, file] = PLACE.exec(plain) ?? [];
  if (!repository) return plain;
  // Any other file stands for its model.
  return `${repository}${revision === "main" ? "" : `@${revision}`}${file?.endsWith(".gguf") ? `/${file}` : ""}`;
}
