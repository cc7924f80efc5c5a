// What the user has typed, for when this tab loads the page again.

const KEY = "semdpo.draft";

/** @typedef {{prompt?: string, options?: Partial<import("./options.js").Options>}} Draft */

/** @param {Draft} draft */
export function saveDraft(draft) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(draft));
  } catch {
    // no storage: the draft ends with the page
  }
}

/** @returns {Draft} */
export function readDraft() {
  try {
    const draft = JSON.parse(sessionStorage.getItem(KEY) ?? "{}");
    return { prompt: String(draft.prompt ?? ""), options: draft.options ?? {} };
  } catch {
    return {}; // no storage, or something else in it
  }
}
