// Where the page's study comes from and where its answers go: `sheet.js` beside the page, and this browser's storage.
"use strict";

/** An answer that could not be kept; its message is one sentence. */
class RequestError extends Error {
  /** @param {string} message @param {boolean} again whether the same may succeed later */
  constructor(message, again) {
    super(message);
    this.again = again;
  }
}

const KEY = `semdpo-study:${SHEET.study}:${SHEET.rater}`;

/** @returns {{consented: string | null, votes: any[]}} what is kept */
function kept() {
  const text = localStorage.getItem(KEY);
  return text === null ? { consented: null, votes: [] } : JSON.parse(text);
}

/** @param {object} all what to keep */
function keep(all) {
  try {
    localStorage.setItem(KEY, JSON.stringify(all));
  } catch {
    throw new RequestError("This browser has no space left for your answers.", true);
  }
}

const source = {
  offline: true,

  /** @returns {Promise<any>} the rater's sheet, with `answered` (trial → questions) and `consented` */
  async load() {
    let all;
    try {
      all = kept();
      keep(all);
    } catch {
      throw new RequestError("This browser keeps no answers for this page; allow it to store data, or use another.", false);
    }
    const answered = {};
    for (const { trial, question } of all.votes) (answered[trial] ??= []).push(question);
    return { ...SHEET, answered, consented: all.consented !== null };
  },

  /** Records that the rater agreed. */
  async consent() {
    const all = kept();
    keep({ ...all, consented: all.consented ?? new Date().toISOString() });
  },

  /** Stores an answer. @param {any} answer */
  async vote(answer) {
    const all = kept(); // another tab may have added to it
    const before = all.votes.find((each) => each.trial === answer.trial && each.question === answer.question);
    if (before?.answer === answer.answer) return;
    if (before) throw new RequestError("This question was answered before, and the first answer stands.", false);
    keep({ ...all, votes: [...all.votes, { ...answer, at: new Date().toISOString() }] });
  },

  /** @param {string} id @returns {string} the address of an image */
  image: (id) => `images/${id}.png`,

  /** Saves the answers as a file. */
  save() {
    const all = { format: "semdpo-study-votes", version: 1, study: SHEET.study, rater: SHEET.rater, ...kept() };
    const link = document.createElement("a");
    const file = URL.createObjectURL(new Blob([JSON.stringify(all, null, 1)], { type: "application/json" }));
    link.href = file;
    link.download = `votes-${SHEET.rater}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(file), 60_000);
  },
};
