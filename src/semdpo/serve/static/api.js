// The requests to the server, and what can go wrong with them.

import { askForToken, readToken } from "./token.js";
import { errorWords } from "./words.js";

/**
 * @typedef {object} Rewrite one variant, as the server sends it
 * @property {string} prompt
 * @property {string} rewrite
 * @property {number} drift
 * @property {string} reason why the rewrite is the prompt; empty where it is the model's
 * @property {boolean} truncated
 * @property {string} model
 * @property {string[]} [spans] what must not change, as typed
 */
/** @typedef {{id: string, semdpo?: {encoder?: string, max_drift?: number | null}}} Model */

/** A failed request; its message is one sentence that names the cure. */
export class ApiError extends Error {
  /** @param {number} status of HTTP; 0 where the server did not answer @param {string} message */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const NOT_SEMDPO = "This address answers, but not as semdpo does; check the address.";

/** @returns {Promise<Model[]>} */
export async function getModels() {
  const { data } = await json("v1/models", {});
  if (!Array.isArray(data)) throw new ApiError(200, NOT_SEMDPO);
  return data;
}

/** @returns {Promise<string | null>} the renderer's name */
export const getRenderer = async () => (await json("healthz", {})).renderer ?? null;

/**
 * @param {object} request as the contract of `POST /v1/optimize`
 * @param {AbortSignal} [signal]
 * @returns {Promise<Rewrite>} the last variant that there is
 */
export async function optimize(request, signal) {
  const { model, results } = await json("v1/optimize", post(request, signal));
  const last = Array.isArray(results) ? results.at(-1) : null;
  if (typeof last?.rewrite !== "string") throw new ApiError(200, NOT_SEMDPO);
  return { ...last, model: last.model ?? model };
}

/**
 * @param {{prompt: string, original: string | null, seed: number, model: string | null}} request
 * @param {AbortSignal} [signal]
 * @returns {Promise<{png: Blob, truncated: boolean}>} an image, and whether the renderer did not read the whole prompt
 */
export async function render(request, signal) {
  const response = await call("v1/render", post(request, signal));
  return { png: await response.blob(), truncated: response.headers.get("X-Semdpo-Truncated") === "true" };
}

/** @param {object} body @param {AbortSignal} [signal] @returns {RequestInit} */
const post = (body, signal) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
  signal,
});

/** @param {string} path @param {RequestInit} init */
async function json(path, init) {
  const response = await call(path, init);
  try {
    return await response.json();
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new ApiError(response.status, NOT_SEMDPO);
  }
}

/** Asks for a token where the server wants one, then asks again. @param {string} path @param {RequestInit} init */
async function call(path, init) {
  for (;;) {
    const token = readToken();
    const headers = { ...init.headers, ...(token && { Authorization: `Bearer ${token}` }) };
    let response;
    try {
      response = await fetch(path, { ...init, headers, cache: "no-store", credentials: "same-origin" });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new ApiError(0, errorWords(0, ""));
    }
    if (response.ok) return response;
    if (response.status !== 401) throw await errorOf(response);
    const isNew = readToken() !== token; // another request has asked meanwhile
    if (!isNew && !(await askForToken(Boolean(token)))) throw await errorOf(response);
    init.signal?.throwIfAborted();
  }
}

/** @param {Response} response @returns {Promise<ApiError>} */
async function errorOf(response) {
  const body = await response.json().catch(() => null);
  const message = typeof body?.error?.message === "string" ? body.error.message : "";
  return new ApiError(response.status, errorWords(response.status, message, response.headers.get("Retry-After")));
}
