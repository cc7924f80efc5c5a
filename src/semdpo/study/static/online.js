// Where the page's study comes from and where its answers go: the server that the page was loaded from.
// Scripts of a study are no modules, because browsers load no modules for a page that is opened from a disk.
"use strict";

/** A failed request; its message is one sentence. */
class RequestError extends Error {
  /** @param {string} message @param {boolean} again whether the same request may succeed later */
  constructor(message, again) {
    super(message);
    this.again = again;
  }
}

const PLACE = location.pathname.replace(/\/+$/, "");
const TOKEN = PLACE.slice(PLACE.lastIndexOf("/") + 1);

/** @param {string} path @param {object} [body] what is posted; without it, the path is read */
async function call(path, body) {
  const post = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(`${PLACE}/${path}`, { cache: "no-store", credentials: "same-origin", ...post });
  } catch {
    throw new RequestError("The server cannot be reached.", true);
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  const said = answer?.error?.message ?? "the server cannot answer now";
  const again = response.status >= 500 || response.status === 408 || response.status === 429 || response.ok;
  throw new RequestError(`${said[0].toUpperCase()}${said.slice(1)}.`, again);
}

const source = {
  offline: false,

  /** @returns {Promise<any>} the rater's sheet, with `answered` (trial → questions) and `consented` */
  load: () => call("sheet"),

  /** Records that the rater agreed. */
  consent: () => call("consent", { agreed: true }),

  /** Stores an answer. @param {object} answer */
  vote: (answer) => call("votes", answer),

  /** @param {string} id @returns {string} the address of an image */
  image: (id) => `../i/${TOKEN}/${id}.png`,
};
