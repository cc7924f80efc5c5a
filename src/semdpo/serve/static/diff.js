// Which words of a prompt a rewrite kept, added and lost.

/** @typedef {{text: string, gap: string, key: string, span: boolean}} Token a word, and the blanks after it */
/** @typedef {{kind: "kept" | "added" | "lost", text: string, span: boolean}} Part words that share a mark */

const NO_BLANKS =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}]/u;
const MOST_CELLS = 4_000_000; // above this the order of words is ignored

/**
 * @param {string} prompt
 * @param {string} rewrite
 * @param {string[]} [spans] protected spans, which are compared whole
 * @returns {{parts: Part[], added: number, lost: number, kept: number}} parts other than the lost ones are together
 *   the rewrite, blanks included; the numbers count words; a word that moved counts as kept
 */
export function diff(prompt, rewrite, spans = []) {
  const before = tokens(prompt, spans);
  const after = tokens(rewrite, spans);
  const pairs = common(before, after);
  const [keptBefore, keptAfter] = withMoved(pairs, before, after);
  const parts = [];
  let at = 0; // the next word of the prompt
  const showLost = (end) => {
    for (; at < end; at++) if (!keptBefore.has(at)) push(parts, "lost", before[at]);
  };
  let next = 0; // of the pairs
  after.forEach((token, place) => {
    showLost(pairs[next]?.[0] ?? before.length); // lost words stand before the words that replace them
    if (place === pairs[next]?.[1]) next++;
    const wasAdded = parts.findLast(({ kind }) => kind !== "lost")?.kind === "added"; // decides for punctuation
    push(parts, (token.key ? !keptAfter.has(place) : wasAdded) ? "added" : "kept", token);
  });
  showLost(before.length);
  const words = after.filter(({ key }) => key).length;
  const lost = before.filter(({ key }, place) => key && !keptBefore.has(place)).length;
  return { parts, added: words - keptAfter.size, lost, kept: keptAfter.size };
}

/** @param {Part[]} parts @param {Part["kind"]} kind @param {Token} token */
function push(parts, kind, { text, gap, key, span }) {
  if (kind === "lost" && !key) return; // punctuation alone
  const last = parts.at(-1);
  if (last?.kind === kind && last.span === span && !span) last.text += text + gap;
  else parts.push({ kind, text: text + gap, span });
}

/**
 * The words of a text; together they are the text.
 * @param {string} text
 * @param {string[]} spans
 * @returns {Token[]}
 */
export function tokens(text, spans) {
  const found = [];
  let at = 0;
  for (const [start, end] of [...places(text, spans), [text.length, text.length]]) {
    for (const [word, gap] of words(text.slice(at, start))) {
      found.push({ text: word, gap, key: keyOf(word), span: false });
    }
    if (end > start) {
      const gap = /^\s*/.exec(text.slice(end))[0];
      const whole = text.slice(start, end);
      found.push({ text: whole, gap, key: whole, span: true });
      at = end + gap.length;
    }
  }
  return found;
}

/** A word without case and outer punctuation; empty where it has no letter, digit or symbol. @param {string} word */
const keyOf = (word) => word.toLowerCase().replace(/^[^\p{L}\p{N}\p{S}]+|[^\p{L}\p{N}\p{M}\p{S}]+$/gu, "");

/** @param {string} text @returns {[string, string][]} words, each with the blanks after it */
function words(text) {
  const found = [];
  for (const [, word, gap] of text.matchAll(/(\S*)(\s*)/gu)) {
    if (!word && !gap) continue;
    const pieces = NO_BLANKS.test(word) ? segments(word) : [word];
    pieces.forEach((piece, place) => found.push([piece, place === pieces.length - 1 ? gap : ""]));
  }
  return found;
}

/** The words of a script that puts no blanks between them. @param {string} text */
function segments(text) {
  if (!Intl.Segmenter) return [text];
  return Array.from(new Intl.Segmenter(undefined, { granularity: "word" }).segment(text), (each) => each.segment);
}

/**
 * Where the spans stand in a text, each once, from left to right.
 * @param {string} text
 * @param {string[]} spans
 * @returns {[number, number][]}
 */
function places(text, spans) {
  const taken = [];
  for (const span of [...spans].sort((a, b) => b.length - a.length)) {
    for (let at = text.indexOf(span); span && at >= 0; at = text.indexOf(span, at + 1)) {
      const end = at + span.length;
      if (!isWhole(text, at, end) || taken.some(([from, to]) => at < to && from < end)) continue;
      taken.push([at, end]);
      break;
    }
  }
  return taken.sort((a, b) => a[0] - b[0]);
}

/** Whether no word is divided at the ends of a place. @param {string} text @param {number} start @param {number} end */
function isWhole(text, start, end) {
  const divides = (at) => /^[\p{L}\p{N}]{2}$/u.test(text.slice(at - 1, at + 1));
  return !(start > 0 && divides(start)) && !divides(end);
}

/**
 * Adds the words that both have in another order.
 * @param {[number, number][]} pairs places of equal words
 * @param {Token[]} before
 * @param {Token[]} after
 * @returns {[Set<number>, Set<number>]} the places in `before` and in `after` of the words that both have
 */
function withMoved(pairs, before, after) {
  const keptBefore = new Set(pairs.map(([i]) => i));
  const keptAfter = new Set(pairs.map(([, j]) => j));
  const free = new Map();
  before.forEach(({ key }, i) => {
    if (!key || keptBefore.has(i)) return;
    if (!free.has(key)) free.set(key, []);
    free.get(key).push(i);
  });
  after.forEach(({ key }, j) => {
    const i = keptAfter.has(j) ? undefined : free.get(key)?.shift();
    if (i === undefined) return;
    keptBefore.add(i);
    keptAfter.add(j);
  });
  return [keptBefore, keptAfter];
}

/**
 * A longest common subsequence; empty where the texts are so long that the order of words is ignored.
 * @param {Token[]} before
 * @param {Token[]} after
 * @returns {[number, number][]} places of equal words, in order
 */
function common(before, after) {
  if (before.length * after.length > MOST_CELLS) return [];
  const width = after.length + 1;
  const best = new Uint16Array((before.length + 1) * width); // the longest for before[i:] and after[j:]
  const equal = (i, j) => before[i].key !== "" && before[i].key === after[j].key;
  for (let i = before.length - 1; i >= 0; i--) {
    for (let j = after.length - 1; j >= 0; j--) {
      const skip = Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
      best[i * width + j] = equal(i, j) ? best[(i + 1) * width + j + 1] + 1 : skip;
    }
  }
  const pairs = [];
  for (let i = 0, j = 0; i < before.length && j < after.length;) {
    if (equal(i, j)) pairs.push([i++, j++]);
    else if (best[(i + 1) * width + j] >= best[i * width + j + 1]) i++;
    else j++;
  }
  return pairs;
}
