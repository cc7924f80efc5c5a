// Connects the form, the server, the results and the history.

import { getModels, getRenderer } from "./api.js";
import { byId, el } from "./dom.js";
import { readDraft, saveDraft } from "./draft.js";
import { openHistory } from "./history.js";
import { readOptions, showOptions, writeOptions } from "./options.js";
import { showHistory } from "./pasts.js";
import { clearError, showError, showNothing, showRun, showStatus, statusOf } from "./results.js";
import { Run, slotsOf } from "./run.js";

const form = byId("ask");
const prompt = byId("prompt");
const history = openHistory(() => localStorage);

/** All that the page remembers; everything else is in the elements. */
const store = {
  models: [], // those that the server has
  renderer: null, // its name
  run: null, // the newest
  view: null, // what shows it
};

const chosenModels = () => {
  const names = new Set(Array.from(form.querySelectorAll("[name=model]:checked"), (box) => box.value));
  return store.models.length < 2 ? store.models : store.models.filter(({ id }) => names.has(id));
};

/** Asks the server what it has, and offers it. */
async function meetServer() {
  const [models, renderer] = await Promise.all([getModels(), getRenderer()]);
  Object.assign(store, { models, renderer });
  const boxes = models.map(({ id }) =>
    el(
      "label",
      { class: "chip" },
      el("input", { type: "checkbox", name: "model", value: id, checked: true }),
      el("span", { dir: "auto" }, id),
    ),
  );
  byId("model-list").replaceChildren(...boxes);
  byId("models").hidden = models.length < 2;
  byId("draw-field").hidden = !renderer;
  byId("serving").textContent = [models.map(({ id }) => id).join(", "), renderer && `images by ${renderer}`]
    .filter(Boolean)
    .join(" · ");
  showOptions(readOptions(form), models);
}

async function rewrite() {
  stop();
  clearError();
  const started = {};
  store.run = started; // so that a newer press overtakes this one while it waits for the models
  try {
    if (!store.models.length) await meetServer();
  } catch (error) {
    if (store.run === started) showError(error.message, rewrite);
    return;
  }
  if (store.run !== started) return;
  const options = readOptions(form);
  const run = new Run(prompt.value, options, slotsOf(options, chosenModels()));
  show(run);
  if (matchMedia("(max-width: 59.99rem)").matches) byId("results").scrollIntoView();
  await fill(run);
}

/** Asks for the rewrites of a run that are not there. @param {Run} run */
async function fill(run) {
  clearError();
  const { view } = store;
  const isNewest = () => store.run === run;
  const going = run.start((slot) => {
    if (!isNewest()) return;
    view.update(slot);
    showStatus(statusOf(run));
  });
  run.slots.filter(({ state }) => state === "waiting").forEach(view.update);
  showBusy(true);
  showStatus(statusOf(run));
  const failure = await going;
  if (run.done.length) remember(run);
  if (!isNewest()) return;
  showBusy(false);
  if (run.done.length) run.slots.filter(({ state }) => state === "missing").forEach(view.update);
  else showNothing();
  showStatus(statusOf(run));
  if (failure) showError(failure.message, () => retry(run));
}

/** @param {Run} run one of which a rewrite failed */
function retry(run) {
  if (!run.done.length) show(run);
  return fill(run);
}

/** @param {Run} run */
function show(run) {
  store.view?.free();
  store.run = run;
  store.view = showRun(run, { renderer: store.renderer, draw: Boolean(store.renderer && run.options.draw) });
}

/** Ends what the newest run still does. @returns {boolean} whether it did anything */
const stop = () => store.run?.cancel?.() ?? false;

/** @param {boolean} busy */
function showBusy(busy) {
  byId("cancel").hidden = !busy;
  byId("escape").hidden = !busy;
  byId("columns").setAttribute("aria-busy", String(busy));
}

/** @param {Run} run */
function remember(run) {
  const slots = run.done.map(({ model, seed, limit, rewrite: { rewrite, drift, reason, truncated, spans } }) => ({
    model,
    seed,
    limit,
    rewrite: { rewrite, drift, reason, truncated, spans },
  }));
  history.add({ prompt: run.prompt, options: run.options, when: Date.now(), slots });
  showHistory(history, showPast);
}

/** Shows an earlier prompt and its rewrites; nothing is asked. @param {import("./history.js").Entry} entry */
function showPast(entry) {
  stop();
  clearError();
  showBusy(false);
  prompt.value = entry.prompt;
  writeOptions(form, entry.options);
  changed();
  const options = { ...readOptions(form), draw: false };
  show(
    new Run(
      entry.prompt,
      options,
      entry.slots.map((slot) => ({ ...slot, state: "done" })),
    ),
  );
  showStatus("From your history.");
  byId("results").focus();
}

/** Follows a change of the form, and keeps it for when the page is loaded again. */
function changed() {
  const options = readOptions(form);
  showOptions(options, store.models);
  prompt.setCustomValidity(prompt.value.trim() ? "" : "Type a prompt first: what should the image show?");
  saveDraft({ prompt: prompt.value, options });
}

function start() {
  const show = (error) => store.run || showError(error.message, start); // a run shows its own error
  meetServer().then(() => store.run || clearError(), show);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (store.models.length > 1 && !chosenModels().length) showError("No model is chosen; tick one under your prompt.");
  else rewrite();
});
form.addEventListener("input", changed);
form.addEventListener(
  "invalid",
  () => (byId("options").open ||= Boolean(byId("options").querySelector(":invalid"))),
  true,
);
byId("cancel").addEventListener("click", () => {
  stop();
  prompt.focus(); // the button goes away
});
byId("reseed").addEventListener("click", () => {
  byId("seed").value = String(Math.floor(Math.random() * 1_000_000));
  changed();
});
byId("history-clear").addEventListener("click", () => {
  history.clear();
  showHistory(history, showPast);
  showStatus("The history is cleared.");
  prompt.focus();
});
document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    form.requestSubmit();
  } else if (event.key === "Escape" && !event.isComposing && stop()) event.preventDefault();
});

byId("modifier").textContent = /Mac|iPhone|iPad/.test(navigator.platform) ? "⌘" : "Ctrl";
const draft = readDraft();
prompt.value ||= draft.prompt ?? ""; // the user may type before this runs
writeOptions(form, draft.options ?? {});
changed();
showHistory(history, showPast);
start();
