// Shows a rater one comparison after the other. `source` (online.js or offline.js) has the study and takes the answers.
"use strict";

const WAITS = [1, 2, 4, 8, 15]; // seconds before an answer is sent again; the last one repeats
const AHEAD = 2; // comparisons whose images are loaded before they are needed
const KEYS = { ArrowLeft: "left", 1: "left", ArrowRight: "right", 2: "right", 3: "tie" };
const SECTIONS = ["loading", "trouble", "welcome", "trial", "done"];

/** @param {string} id @returns {any} */
const byId = (id) => document.getElementById(id);

let sheet; // the rater's study, as the source has it
let todo = []; // what is not answered yet: [trial, question], in the rater's order
let shownAt = null; // when both images of the current trial appeared; null while they do not
let sending = false; // whether an answer is on its way
let wake = () => {}; // sends a waiting answer at once
const loaded = new Map(); // trial id → promise of its two images

/** Shows one section. @param {string} name */
function show(name) {
  for (const each of SECTIONS) byId(each).hidden = each !== name;
}

/** @param {unknown} error */
function fail(error) {
  byId("trouble-text").textContent = error instanceof Error ? error.message : String(error);
  show("trouble");
}

/** The images of a trial, decoded, so that both can appear at once. @param {any} trial */
function images(trial) {
  if (!loaded.has(trial.id)) {
    const pair = [trial.left, trial.right].map(async (id) => {
      const image = new Image();
      image.alt = "";
      image.draggable = false;
      image.src = source.image(id);
      await image.decode();
      return image;
    });
    loaded.set(trial.id, Promise.all(pair));
    loaded.get(trial.id).catch(() => loaded.delete(trial.id)); // it is asked for again
  }
  return loaded.get(trial.id);
}

/** Loads the images of the current trial and of the next ones, and forgets those of earlier trials. */
function preload() {
  const next = [...new Set(todo.map(([trial]) => trial))].slice(0, AHEAD + 1);
  for (const id of loaded.keys()) if (!next.some((trial) => trial.id === id)) loaded.delete(id);
  for (const trial of next) images(trial).catch(() => {});
}

/** Shows the first open question; without one, the end. */
async function next() {
  if (!todo.length) return finish();
  const [trial, question] = todo[0];
  preload();
  const another = byId("trial").dataset.trial !== trial.id;
  if (another) shownAt = null;
  let pair;
  try {
    pair = await images(trial);
  } catch {
    return fail(new Error("An image did not load. Check your connection, then load the page again."));
  }
  const place = sheet.trials.indexOf(trial);
  byId("count").textContent = `${place + 1} of ${sheet.trials.length}`;
  byId("bar").max = sheet.trials.length;
  byId("bar").value = place;
  byId("prompt").textContent = trial.prompt;
  byId("question").textContent = question.words;
  if (another) {
    byId("left-frame").replaceChildren(pair[0]);
    byId("right-frame").replaceChildren(pair[1]);
    byId("trial").dataset.trial = trial.id;
  }
  show("trial");
  if (another) {
    window.scrollTo(0, 0);
    await new Promise(requestAnimationFrame); // the frame in which both images appear
    shownAt = performance.now();
  }
  byId("trial").ariaBusy = "false";
  byId("question").focus({ preventScroll: true });
}

function finish() {
  show("done");
  byId("done-title").focus();
}

/** Takes an answer to the current question. @param {"left" | "right" | "tie"} choice */
async function choose(choice) {
  if (sending || shownAt === null || (choice === "tie" && sheet.tie === null)) return;
  sending = true;
  byId("trial").ariaBusy = "true";
  const [trial, question] = todo[0];
  const answer = {
    answer: newId(),
    trial: trial.id,
    question: question.name,
    choice,
    left: trial.left,
    right: trial.right,
    seconds: Math.round(performance.now() - shownAt) / 1000,
  };
  byId(choice).classList.add("chosen");
  try {
    await send(answer);
    todo.shift();
  } catch (error) {
    return fail(error);
  } finally {
    byId(choice).classList.remove("chosen");
    byId("saving").replaceChildren();
    sending = false;
  }
  await next();
}

/** Sends an answer until it is stored, always under the same id. @param {object} answer */
async function send(answer) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await source.vote(answer);
    } catch (error) {
      if (!error.again) throw error;
      byId("trial").ariaBusy = "false"; // what is said below is to be heard
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Try now";
      button.onclick = () => wake();
      const text = document.createElement("p");
      text.textContent = `${error.message} Your answer is not saved yet; this page tries again by itself.`;
      if (tries === 0) byId("saving").replaceChildren(text, button);
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, 1000 * WAITS[Math.min(tries, WAITS.length - 1)]);
      });
    }
  }
}

/** @returns {string} 32 random hexadecimal digits */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const choice = KEYS[event.key];
  if (!choice || event.repeat || event.ctrlKey || event.metaKey || event.altKey || byId("trial").hidden) return;
  event.preventDefault();
  choose(choice);
}

/** Fills in what the whole study has in common. */
function prepare() {
  document.title = sheet.title;
  byId("title").textContent = sheet.title;
  byId("simulated").hidden = !sheet.simulated;
  for (const part of sheet.consent.split(/\n\s*\n/)) {
    const text = document.createElement("p");
    text.textContent = part;
    byId("consent").append(text);
  }
  const questions = sheet.questions.length;
  byId("how-many").textContent =
    `You will see ${sheet.trials.length} pairs of images, ${questions === 1 ? "with one question" : `with ${questions} questions`} each.`;
  byId("tie").hidden = byId("how-tie").hidden = sheet.tie === null;
  byId("tie-words").textContent = byId("how-tie-words").textContent = sheet.tie ?? "";
  todo = sheet.trials.flatMap((trial) =>
    sheet.questions
      .filter(({ name }) => !(sheet.answered[trial.id] ?? []).includes(name))
      .map((question) => [trial, question]),
  );
  if (source.offline) {
    byId("how-kept").textContent =
      "Answers are kept in this browser. You may close this page and go on later in the same browser. At the end, save your answers as a file and send it.";
    byId("done-text").textContent = "All questions are answered. Save your answers below, and send the file.";
    byId("keep").hidden = false;
  }
}

async function start() {
  for (const choice of ["left", "right", "tie"]) {
    byId(choice).onclick = ({ detail }) => {
      if (detail < 2) choose(choice); // the second click of a double one would answer the next question
    };
  }
  byId("trouble-button").onclick = () => location.reload();
  byId("keep-button").onclick = () => source.save();
  byId("begin").onclick = async () => {
    byId("begin").disabled = true;
    try {
      await source.consent();
      await next();
    } catch (error) {
      fail(error);
    }
  };
  document.addEventListener("keydown", onKey);
  window.addEventListener("online", () => wake());
  try {
    sheet = await source.load();
    prepare();
  } catch (error) {
    return fail(error);
  }
  if (sheet.consented) return next();
  preload();
  show("welcome");
}

start();
