// What numbers, reasons and errors mean, in plain English.

const USUAL_LIMIT = 0.3; // of a rewriter for which none was measured
const DRIFT_WORDS = [
  [0.02, "means the same"],
  [0.4, "means almost the same"],
  [1.001, "stays close to the meaning"],
  [2, "changes some of the meaning"],
  [4, "changes much of the meaning"],
  [Infinity, "means something else"],
];

/**
 * What a drift means depends on the encoder, so it is compared with the limit that was measured with it.
 * @param {number} drift cosine distance, 0 to 2
 * @param {number | null} [limit] the largest drift that the rewriter's guard allows
 * @returns {string} what it means
 */
export const driftWords = (drift, limit) => DRIFT_WORDS.find(([end]) => drift / (limit || USUAL_LIMIT) < end)[1];

/**
 * @param {number} drift
 * @returns {string} with two digits
 */
export const driftNumber = (drift) => Math.max(0, drift).toFixed(2);

/**
 * The end of the scale on which a drift and its limit are shown.
 * @param {number} drift
 * @param {number | null} limit
 * @returns {number} 0.1, 0.5, 1 or 2
 */
export function scaleEnd(drift, limit) {
  const farthest = Math.max(drift, limit ?? 0);
  return [0.1, 0.5, 1].find((end) => farthest < end * 0.95) ?? 2;
}

/**
 * @param {number} number
 * @param {string} one the noun
 * @param {string} [many]
 * @returns {string} such as "1 rewrite"
 */
export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

/**
 * A text as a sentence: a capital at the start and a full stop at the end.
 * @param {string} text
 * @returns {string}
 */
export function sentence(text) {
  const trimmed = text.trim();
  return trimmed && trimmed[0].toUpperCase() + trimmed.slice(1) + (/[.!?…]$/.test(trimmed) ? "" : ".");
}

const REASONS = [
  [/banned/i, "Allow that word, or try another seed."],
  [/no rewrite kept|lost/i, "Try another seed, a larger drift, or fewer words to keep."],
  [/near enough|drift/i, "Raise the largest drift, or try another seed."],
  [/does not know/, "Use words that the model was trained on, or a server with another model."],
  [/no words/, "Add words that say what the image should show."],
];

/**
 * Why a prompt was kept, and what to do.
 * @param {string} reason the server's
 * @returns {{why: string, cure: string}}
 */
export function reasonWords(reason) {
  const why = sentence(reason.replace(/^the prompt is kept:\s*/i, ""));
  return { why, cure: REASONS.find(([pattern]) => pattern.test(why))?.[1] ?? "" };
}

/**
 * One sentence that says what failed and what to do.
 * @param {number} status of HTTP; 0 where the server did not answer
 * @param {string} message the server's
 * @param {string | null} retryAfter its header of this name
 * @returns {string}
 */
export function errorWords(status, message, retryAfter = null) {
  const seconds = Math.ceil(Number(retryAfter)); // some servers send a date, which is NaN here
  const wait = retryAfter !== null && seconds > 0 ? `in ${count(seconds, "second")}` : "in a moment";
  switch (status) {
    case 0:
      return "The server does not answer; start it with “semdpo serve”, then try again.";
    case 401:
      return "The server asks for a token; try again and enter it.";
    case 429:
      return `The server has too much to do; try again ${wait}.`;
    case 503:
      return `The server cannot do this now; try again ${wait}.`;
    case 504:
      return "The rewrite took too long; choose a shorter length or fewer variants, then try again.";
  }
  if (status >= 500) return "The server failed; look at what it printed where it was started, then try again.";
  return sentence(message) || `The server refused this with status ${status}; check the options, then try again.`;
}
