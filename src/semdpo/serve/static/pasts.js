// The list of earlier prompts.

import { byId, el } from "./dom.js";
import { count } from "./words.js";

/**
 * @param {ReturnType<import("./history.js").openHistory>} history
 * @param {(entry: import("./history.js").Entry) => void} onPick
 */
export function showHistory(history, onPick) {
  const entries = history.list();
  const time = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const items = entries.map((entry) => {
    const details = `${count(entry.slots.length, "rewrite")} · ${time.format(entry.when)}`;
    const button = el("button", { type: "button", class: "past", onclick: () => onPick(entry) },
      el("span", { dir: "auto" }, entry.prompt), el("small", {}, details)); // prettier-ignore
    return el("li", {}, button);
  });
  byId("history").hidden = entries.length === 0;
  byId("history-count").textContent = String(entries.length);
  byId("history-list").replaceChildren(...items);
  byId("history-hint").textContent = history.lasts()
    ? "It is kept in this browser only."
    : "This browser keeps no more; the list ends with this tab.";
}
