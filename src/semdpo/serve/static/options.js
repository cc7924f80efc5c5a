// The options of the form, and the request that they make.

import { byId } from "./dom.js";
import { driftNumber, driftWords } from "./words.js";

/**
 * @typedef {object} Options as the user left the form's fields
 * @property {string} variants
 * @property {string} seed
 * @property {string} length "", "short", "medium", "long" or "own"
 * @property {string} tokens the own length
 * @property {string} max_drift empty: the model's own
 * @property {string} keep
 * @property {string} banned
 * @property {boolean} draw
 */

const FIELDS = ["variants", "seed", "length", "tokens", "max_drift", "keep", "banned"];

/** @param {HTMLFormElement} form @returns {Options} */
export function readOptions(form) {
  const values = Object.fromEntries(FIELDS.map((name) => [name, form.elements.namedItem(name).value]));
  return { ...values, draw: form.elements.draw.checked };
}

/** @param {HTMLFormElement} form @param {Partial<Options>} options */
export function writeOptions(form, options) {
  for (const name of FIELDS) if (typeof options[name] === "string") form.elements.namedItem(name).value = options[name];
  if (typeof options.draw === "boolean") form.elements.draw.checked = options.draw;
}

/** @param {string} text phrases with commas between them @returns {string[]} */
export const phrases = (text) => [
  ...new Set(
    text
      .split(/[,\n，、،]/u)
      .map((phrase) => phrase.trim())
      .filter(Boolean),
  ),
];

/**
 * @param {string} prompt
 * @param {Options} options
 * @param {string | null} model
 * @param {number} seed of this variant
 * @returns {object} as the contract of `POST /v1/optimize`
 */
export function requestOf(prompt, options, model, seed) {
  const length = options.length === "own" ? Number(options.tokens) : options.length || null;
  return {
    prompt,
    keep: phrases(options.keep),
    length,
    max_drift: options.max_drift === "" ? null : Number(options.max_drift),
    banned: phrases(options.banned),
    // The first variant is the most probable rewrite, whatever the seed; the second is the best sampled one.
    n: seed === firstSeed(options.seed) ? 1 : 2,
    seed,
    model,
  };
}

/**
 * Shows what depends on the fields: the own length, and what the largest drift means.
 * @param {Options} options
 * @param {import("./api.js").Model[]} models
 */
export function showOptions(options, models) {
  const own = options.length === "own";
  byId("tokens-field").hidden = !own;
  byId("tokens").disabled = !own; // a hidden field must not stop the form
  const limits = new Set(models.map((model) => model.semdpo?.max_drift ?? null));
  const limit = limits.size === 1 ? [...limits][0] : null;
  byId("max-drift").placeholder = limit === null ? "the model’s own" : driftNumber(limit);
  const drift = options.max_drift === "" ? limit : Number(options.max_drift);
  const words =
    drift === null || Number.isNaN(drift) ? "Each model has its own." : `A rewrite there ${driftWords(drift, limit)}.`;
  byId("drift-hint").textContent = `${words} What drifts farther is not used.`;
}

/** @param {string} seed @returns {number} the seed of the first variant */
export const firstSeed = (seed) => Number(seed) || 0;
