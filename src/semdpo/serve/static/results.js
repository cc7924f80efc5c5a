// The list of rewrites, one column a model, and the messages above it.

import { missingCard, rewriteCard, waitingCard } from "./card.js";
import { byId, el } from "./dom.js";
import { imagesBlock, imagesOf } from "./images.js";
import { count } from "./words.js";

/** @param {string} text announced to screen readers too */
export const showStatus = (text) => (byId("status").textContent = text);

/**
 * @param {string} message one sentence with the cure
 * @param {() => void} [retry]
 */
export function showError(message, retry) {
  const button = retry && el("button", { type: "button", onclick: retry }, "Try again");
  byId("error").replaceChildren(el("p", {}, message), ...(button ? [button] : []));
}

export const clearError = () => byId("error").replaceChildren();

/** What a run has come to, as a sentence. @param {import("./run.js").Run} run */
export function statusOf(run) {
  const [all, done] = [run.slots.length, run.done.length];
  const kept = run.done.filter(({ rewrite }) => rewrite.reason).length;
  if (run.waiting && !run.cancelled) return `Writing: ${done} of ${count(all, "rewrite")} here.`;
  if (done < all) return `${run.cancelled ? "Cancelled: " : ""}${done} of ${count(all, "rewrite")} here.`;
  return `${count(all, "rewrite")}${kept ? `, ${kept} of them your prompt as it was` : ""}.`;
}

/**
 * Shows the places of a run's rewrites, and returns what shows each when it has come.
 * @param {import("./run.js").Run} run
 * @param {{renderer: string | null, draw: boolean}} settings the renderer's name; whether it draws without being asked
 * @returns {{update: (slot: import("./run.js").Slot) => void, free: () => void}}
 */
export function showRun(run, { renderer, draw }) {
  const images = imagesOf(run);
  const places = new Map(); // slot → its list item
  const columns = grouped(run.slots);
  const nodes = [...columns].map(([model, slots], column) => {
    const items = slots.map((slot) => {
      places.set(slot, el("li"));
      return places.get(slot);
    });
    const id = `model-${column}`;
    const title = el(
      "h3",
      { id, dir: "auto", class: columns.size > 1 ? null : "spoken" },
      model ?? "The server’s model",
    );
    return el("section", { class: "column", "aria-labelledby": id }, title, el("ol", {}, ...items));
  });
  byId("empty").hidden = true;
  byId("columns").replaceChildren(...nodes);
  byId("columns").style.setProperty(
    "--rows",
    String(Math.max(...[...columns.values()].map((slots) => slots.length)) + 1),
  );
  byId("columns").classList.toggle("side-by-side", nodes.length > 1);

  const nameOf = (slot) => `Variant ${columns.get(slot.model).indexOf(slot) + 1}`;
  const cardOf = (slot) => {
    const name = nameOf(slot);
    if (slot.state !== "done") return (slot.state === "waiting" ? waitingCard : missingCard)(name, slot.seed);
    const [first] = twinsOf(slot, columns);
    const twin = first === slot ? null : nameOf(first);
    const block = renderer && !twin && !slot.rewrite.reason ? imagesBlock(slot, run.prompt, images, draw) : null;
    return rewriteCard(name, slot, run.prompt, twin, block);
  };
  const update = (slot) => {
    places.get(slot).replaceChildren(cardOf(slot));
    if (slot.state !== "done") return;
    const twins = twinsOf(slot, columns); // one that came earlier may stand later
    for (const other of twins.slice(twins.indexOf(slot) + 1)) places.get(other).replaceChildren(cardOf(other));
  };
  run.slots.forEach(update);
  return { update, free: images.free };
}

/** Shows what the page shows before the first run. */
export function showNothing() {
  byId("columns").replaceChildren();
  byId("empty").hidden = false;
}

/**
 * The slots of a model whose rewrites have the same text, this one included.
 * @param {import("./run.js").Slot} slot
 * @param {Map<string | null, import("./run.js").Slot[]>} columns
 */
const twinsOf = ({ model, rewrite }, columns) =>
  columns.get(model).filter(({ state, rewrite: other }) => state === "done" && other.rewrite === rewrite.rewrite);

/** @param {import("./run.js").Slot[]} slots */
function grouped(slots) {
  const groups = new Map();
  for (const slot of slots) groups.set(slot.model, [...(groups.get(slot.model) ?? []), slot]);
  return groups;
}
