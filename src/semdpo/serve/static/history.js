// The history of prompts. It stays in this browser.

const KEY = "semdpo.history";
const MOST = 50;

/**
 * @typedef {object} Entry
 * @property {string} prompt
 * @property {Partial<import("./options.js").Options>} options
 * @property {number} when milliseconds since 1970
 * @property {import("./run.js").Slot[]} slots those with a rewrite
 */

/**
 * @param {() => Storage} storage gives the browser's storage; it may throw
 * @returns {{list: () => Entry[], add: (entry: Entry) => void, clear: () => void, lasts: () => boolean}}
 */
export function openHistory(storage) {
  let entries = []; // what is kept where the storage refuses
  let lasts = true;

  function list() {
    if (!lasts) return entries;
    try {
      const read = JSON.parse(storage().getItem(KEY) ?? "[]");
      return Array.isArray(read) ? read.filter(isEntry) : [];
    } catch {
      return entries; // broken; the next entry replaces it
    }
  }

  function save() {
    for (let kept = entries.length; kept > 0; kept = Math.floor(kept / 2)) {
      try {
        storage().setItem(KEY, JSON.stringify(entries.slice(0, kept)));
        entries = entries.slice(0, kept);
        lasts = true;
        return;
      } catch {
        lasts = false; // full: with fewer of the oldest it may fit
      }
    }
  }

  return {
    list,
    lasts: () => lasts,
    add(entry) {
      const same = (other) => other.prompt === entry.prompt && equal(other.options, entry.options);
      entries = [entry, ...list().filter((other) => !same(other))].slice(0, MOST);
      save();
    },
    clear() {
      entries = [];
      try {
        storage().removeItem(KEY);
        lasts = true;
      } catch {
        lasts = false;
      }
    },
  };
}

/** @param {object} a @param {object} b */
const equal = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** Whether a value can be shown; another version of this page, or another page, may have written it. */
function isEntry(value) {
  return (
    typeof value?.prompt === "string" &&
    typeof value.when === "number" &&
    typeof value.options === "object" &&
    value.options !== null &&
    Array.isArray(value.slots) &&
    value.slots.every(isSlot)
  );
}

/** @param {any} slot */
function isSlot(slot) {
  const { rewrite } = slot ?? {};
  return (
    typeof rewrite?.rewrite === "string" &&
    typeof rewrite.drift === "number" &&
    typeof rewrite.reason === "string" &&
    (rewrite.spans === undefined ||
      (Array.isArray(rewrite.spans) && rewrite.spans.every((span) => typeof span === "string"))) &&
    (slot.limit === null || typeof slot.limit === "number") &&
    (slot.model === null || typeof slot.model === "string") &&
    typeof slot.seed === "number"
  );
}
