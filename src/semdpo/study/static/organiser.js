// The organiser's page: how far each rater is, the personal links, and the end of the study.
"use strict";

const EVERY = 10_000; // milliseconds between looks at the progress
const PLACE = location.pathname.replace(/\/+$/, "");

/** @param {string} id @returns {any} */
const byId = (id) => document.getElementById(id);

/** @param {string} tag @param {...(Node | string)} children */
function el(tag, ...children) {
  const node = document.createElement(tag);
  node.append(...children);
  return node;
}

/** @param {string | null} at ISO 8601 @returns {string} */
const time = (at) => (at ? at.slice(0, 16).replace("T", " ") : "–");

/** @param {string} id @param {number} number */
function link(id, number) {
  const button = el("button", "Copy");
  button.type = "button";
  button.setAttribute("aria-label", `Copy the link of rater ${number}`);
  button.onclick = async () => {
    const address = new URL(`../r/${id}`, location.href).href;
    try {
      await navigator.clipboard.writeText(address);
      button.textContent = "Copied";
    } catch {
      button.replaceWith(address); // the browser does not let the page copy; the organiser does
    }
  };
  return button;
}

/** @param {any} study */
function draw(study) {
  document.title = byId("title").textContent = study.title;
  byId("simulated").hidden = !study.simulated;
  const finished = study.raters.filter((each) => each.votes >= each.total).length;
  const votes = study.raters.reduce((sum, each) => sum + each.votes, 0);
  const total = study.raters.reduce((sum, each) => sum + each.total, 0);
  byId("summary").textContent =
    `${finished} of ${study.raters.length} raters have finished; ${votes} of ${total} answers are stored.`;
  const rows = byId("rows");
  study.raters.forEach((rater, number) => {
    const cells = [`${rater.votes} of ${rater.total}`, time(rater.consented), time(rater.last)];
    if (rows.children[number]) {
      cells.forEach((text, index) => (rows.children[number].children[index + 1].textContent = text));
    } else {
      const head = el("th", String(number));
      head.scope = "row";
      rows.append(el("tr", head, ...cells.map((text) => el("td", text)), el("td", link(rater.id, number))));
    }
  });
  byId("close").hidden = study.closed !== null;
  byId("votes").hidden = study.closed === null;
  byId("votes").href = `${PLACE}/votes.csv`;
  if (study.closed) byId("state").textContent = `Closed on ${time(study.closed)} UTC. Analyse it with semdpo study analyze.`;
}

async function look() {
  try {
    const response = await fetch(`${PLACE}/progress`, { cache: "no-store" });
    if (!response.ok) throw new Error();
    draw(await response.json());
    byId("trouble").textContent = "";
  } catch {
    byId("trouble").textContent = "The server cannot be reached; this page tries again by itself.";
  }
}

byId("close").onclick = () => byId("sure").showModal();
byId("sure-no").onclick = () => byId("sure").close();
byId("sure-yes").onclick = async () => {
  byId("sure").close();
  const body = { method: "POST", headers: { "Content-Type": "application/json" }, body: '{"close": true}' };
  const response = await fetch(`${PLACE}/close`, body).catch(() => null);
  await look();
  if (!response?.ok) byId("trouble").textContent = "The study could not be closed; try again.";
};
look();
setInterval(look, EVERY);
