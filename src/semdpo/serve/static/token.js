// The token that some servers ask for. It stays in this tab.

import { byId } from "./dom.js";

const KEY = "semdpo.token";
let unsaved = ""; // where the browser has no storage for the page
let open = null; // the question that is being asked

/** @returns {string} empty where there is none */
export function readToken() {
  try {
    return sessionStorage.getItem(KEY) ?? unsaved;
  } catch {
    return unsaved;
  }
}

/** @param {string} token */
function keepToken(token) {
  unsaved = token;
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // it is kept in `unsaved`
  }
}

/**
 * Asks for the token, once for all requests that want it at a time.
 * @param {boolean} wasWrong whether the server refused one
 * @returns {Promise<boolean>} whether one was given
 */
export function askForToken(wasWrong) {
  open ??= ask(wasWrong).finally(() => (open = null));
  return open;
}

/** @param {boolean} wasWrong @returns {Promise<boolean>} */
function ask(wasWrong) {
  const dialog = byId("token-dialog");
  const input = byId("token");
  byId("token-title").textContent = wasWrong ? "The server did not accept this token" : "This server asks for a token";
  input.value = "";
  return new Promise((resolve) => {
    let given = false;
    byId("token-form").onsubmit = (event) => {
      event.preventDefault();
      keepToken(input.value.trim());
      given = true;
      dialog.close();
    };
    byId("token-cancel").onclick = () => dialog.close();
    dialog.addEventListener("close", () => resolve(given), { once: true });
    dialog.showModal();
    input.focus();
  });
}
