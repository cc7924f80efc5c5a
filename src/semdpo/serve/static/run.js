// One press of “Rewrite”: its requests, one a variant and model, and what has come of them.

import { optimize } from "./api.js";
import { firstSeed, requestOf } from "./options.js";

const AT_ONCE = 3; // a server that has much to do refuses more

/**
 * @typedef {object} Slot the place of one rewrite
 * @property {string | null} model
 * @property {number} seed
 * @property {number | null} limit the largest drift
 * @property {"waiting" | "done" | "missing"} state
 * @property {import("./api.js").Rewrite} [rewrite]
 */

/** The rewrites of one prompt with one set of options. */
export class Run {
  #open = new Set();
  #cancels = 0;

  /**
   * @param {string} prompt
   * @param {import("./options.js").Options} options
   * @param {Slot[]} slots
   */
  constructor(prompt, options, slots) {
    Object.assign(this, { prompt, options, slots, cancelled: false });
  }

  get done() {
    return this.slots.filter(({ state }) => state === "done");
  }

  get waiting() {
    return this.slots.some(({ state }) => state === "waiting");
  }

  /**
   * Asks for what is not there yet. After an error nothing more is asked; what is under way still comes.
   * @param {(slot: Slot) => void} onChange
   * @returns {Promise<Error | null>} the first error; null also where the run was cancelled
   */
  async start(onChange) {
    const queue = this.slots.filter(({ state }) => state !== "done");
    for (const slot of queue) slot.state = "waiting";
    let failure = null;
    const worker = async () => {
      for (let slot; !failure && !this.cancelled && (slot = queue.shift());) {
        try {
          slot.rewrite = await this.ask((signal) => optimize(this.#request(slot), signal));
          slot.state = "done";
        } catch (error) {
          failure ??= error;
          slot.state = "missing";
        }
        if (!this.cancelled) onChange(slot);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    for (const slot of this.slots) if (slot.state === "waiting") slot.state = "missing";
    return this.cancelled ? null : failure;
  }

  #request({ model, seed }) {
    return requestOf(this.prompt, this.options, model, seed);
  }

  /**
   * A request that ends when the run is cancelled.
   * @template T
   * @param {(signal: AbortSignal) => Promise<T>} request
   * @param {Promise<unknown>} [turn] what it waits for
   * @returns {Promise<T>}
   */
  async ask(request, turn) {
    const cancels = this.#cancels;
    await turn;
    if (cancels !== this.#cancels) throw new DOMException("cancelled while it waited", "AbortError");
    const controller = new AbortController();
    this.#open.add(controller);
    try {
      return await request(controller.signal);
    } finally {
      this.#open.delete(controller);
    }
  }

  /** Ends all requests, those for images too. @returns {boolean} whether there were any */
  cancel() {
    const any = this.#open.size > 0;
    this.#cancels++;
    this.cancelled ||= this.waiting;
    for (const controller of this.#open) controller.abort();
    return any;
  }
}

/**
 * @param {import("./options.js").Options} options
 * @param {import("./api.js").Model[]} models those to ask; none: the server's own choice
 * @returns {Slot[]} model by model
 */
export function slotsOf(options, models) {
  const own = options.max_drift === "" ? null : Number(options.max_drift);
  return (models.length ? models : [{ id: null }]).flatMap(({ id, semdpo }) =>
    Array.from({ length: Number(options.variants) }, (_, k) => ({
      model: id,
      seed: firstSeed(options.seed) + k,
      limit: own ?? semdpo?.max_drift ?? null,
      state: "waiting",
    })),
  );
}
