// One rewrite: its text with the changes marked, its drift, and what can be done with it.

import { diff } from "./diff.js";
import { el, spoken } from "./dom.js";
import { count, driftNumber, driftWords, reasonWords, scaleEnd } from "./words.js";

/**
 * @param {string} name of the variant, such as "Variant 1"
 * @param {string} seed
 * @param {...(Node | null)} content
 */
const card = (name, seed, ...content) =>
  el(
    "article",
    { class: "card", "aria-label": name },
    el("p", { class: "name" }, name, el("span", {}, seed)),
    ...content,
  );

/** A place where a rewrite will be. @param {string} name @param {number} seed */
export function waitingCard(name, seed) {
  const lines = [1, 2, 3].map(() => el("span", { class: "line" }));
  const node = card(
    name,
    `seed ${seed}`,
    spoken("is being written"),
    el("div", { class: "lines", "aria-hidden": "true" }, ...lines),
  );
  node.classList.add("waiting");
  return node;
}

/** A place where no rewrite came. @param {string} name @param {number} seed */
export const missingCard = (name, seed) =>
  card(name, `seed ${seed}`, el("p", { class: "soft" }, "There is no rewrite here yet."));

/**
 * @param {string} name
 * @param {import("./run.js").Slot} slot with a rewrite
 * @param {string} prompt
 * @param {string | null} twin the name of an earlier variant with the same text
 * @param {{buttons: HTMLElement[], figures: HTMLElement} | null} images what draws them, and where they are
 */
export function rewriteCard(name, slot, prompt, twin, images) {
  const { rewrite, drift, reason, truncated, spans = [] } = slot.rewrite;
  const seed = `seed ${slot.seed}`;
  if (twin) return card(name, seed, el("p", { class: "soft" }, `The same text as ${twin.toLowerCase()}.`));
  const changes = diff(prompt, rewrite, spans);
  return card(
    name,
    seed,
    reason ? keptNote(reason) : null,
    el(
      "p",
      { class: "text", dir: "auto" },
      ...changes.parts.flatMap((part, k, parts) => partNodes(part, parts[k - 1])),
    ),
    meter(drift, slot.limit, Boolean(reason)),
    truncated
      ? el("p", { class: "notice" }, "This rewrite ends at the length limit; choose a longer length for all of it.")
      : null,
    reason ? null : el("p", { class: "counts soft" }, countsOf(changes)),
    el("div", { class: "actions" }, copyButton(rewrite, name), ...(images?.buttons ?? [])),
    images?.figures ?? null,
  );
}

/** @param {string} reason */
function keptNote(reason) {
  const { why, cure } = reasonWords(reason);
  return el("p", { class: "notice kept" }, el("strong", {}, "Your prompt was kept. "), why, cure && ` ${cure}`);
}

/** @param {{added: number, lost: number, kept: number}} changes */
const countsOf = ({ added, lost, kept }) => `${count(added, "word")} added · ${lost} lost · ${kept} kept`;

/**
 * A part with its mark; blanks at its ends are outside the mark.
 * @param {import("./diff.js").Part} part
 * @param {import("./diff.js").Part} [previous]
 */
function partNodes({ kind, text, span }, previous) {
  const word = text.trim();
  if (!word) return [text];
  const [before, after] = text.split(word, 2);
  const inner = span ? el("span", { class: "protected" }, spoken("protected: "), word) : word;
  if (kind === "lost") {
    const gap = () => el("span", { class: "gap" }, " "); // blanks that are not the rewrite's
    const isApart = !previous || /\s$/.test(previous.text);
    return [isApart ? "" : gap(), el("del", {}, spoken("lost: "), inner, spoken(";")), gap()];
  }
  return [before, kind === "added" ? el("ins", {}, spoken("added: "), inner, spoken(";")) : inner, after];
}

/**
 * @param {number} drift
 * @param {number | null} limit
 * @param {boolean} isPrompt whether the prompt was kept
 */
function meter(drift, limit, isPrompt) {
  const end = scaleEnd(drift, limit);
  const words = isPrompt ? "unchanged" : driftWords(drift, limit);
  const limitText = limit === null ? "" : `limit ${driftNumber(limit)}`;
  const bar = el(
    "div",
    {
      class: "meter",
      role: "meter",
      "aria-label": "Drift",
      "aria-valuemin": 0,
      "aria-valuemax": end,
      "aria-valuenow": Math.min(end, Math.max(0, drift)),
      "aria-valuetext": [`${driftNumber(drift)}, ${words}`, limitText].filter(Boolean).join("; "),
    },
    el("span", { class: "fill" }),
    limit === null ? null : el("span", { class: "limit" }),
    limit === null ? null : el("span", { class: "limit-text" }, limitText),
  );
  bar.style.setProperty("--drift", String(Math.max(0, drift) / end));
  bar.style.setProperty("--limit", String((limit ?? 0) / end));
  const sentence = el("p", {}, "drift ", el("strong", {}, driftNumber(drift)), ` – ${words}`);
  return el("div", { class: "drift" }, sentence, bar);
}

/** @param {string} text @param {string} name */
function copyButton(text, name) {
  const label = el("span", {}, "Copy");
  const done = el("span", { class: "spoken", role: "status" });
  const copy = async () => {
    const copied = await copyText(text);
    label.textContent = copied ? "Copied" : "Not copied";
    done.textContent = copied ? `${name} is copied.` : "The browser did not allow it; select the text and copy it.";
    setTimeout(() => {
      label.textContent = "Copy";
      done.textContent = "";
    }, 2500);
  };
  return el(
    "span",
    {},
    el("button", { type: "button", class: "copy", onclick: copy }, label, spoken(` ${name.toLowerCase()}`)),
    done,
  );
}

/** @param {string} text @returns {Promise<boolean>} whether it is in the clipboard */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Over plain HTTP there is no clipboard API, except on this machine; the old way still works.
    const field = el("textarea", { class: "spoken", "aria-hidden": "true" });
    field.value = text;
    const focused = document.activeElement;
    document.body.append(field);
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    focused?.focus();
    return copied;
  }
}
