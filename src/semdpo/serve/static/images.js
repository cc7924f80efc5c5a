// Images of the prompt and of a rewrite, drawn with the same seed.

import { render } from "./api.js";
import { el } from "./dom.js";

/** @typedef {{url: string, truncated: boolean}} Drawn an image, and whether its prompt was too long for the renderer */

/**
 * What draws the images of one run; an image of the prompt is drawn once a seed.
 * @param {import("./run.js").Run} run
 */
export function imagesOf(run) {
  const prompts = new Map(); // seed → the image of the prompt
  const urls = [];
  let last = Promise.resolve(); // one image at a time: rewrites must not wait for a queue of them

  const draw = (prompt, original, seed, model) => {
    const image = run.ask((signal) => render({ prompt, original, seed, model }, signal), last);
    last = image.catch(() => {});
    return image.then(({ png, truncated }) => {
      urls.push(URL.createObjectURL(png));
      return { url: urls.at(-1), truncated };
    });
  };

  return {
    /** @param {import("./run.js").Slot} slot @returns {Promise<Drawn>[]} the images before and after */
    pair({ seed, model, rewrite }) {
      if (!prompts.has(seed)) {
        const image = draw(run.prompt, null, seed, model);
        prompts.set(seed, image);
        image.catch(() => prompts.delete(seed));
      }
      return [prompts.get(seed), draw(rewrite.rewrite, run.prompt, seed, model)];
    },
    free: () => urls.splice(0).forEach((url) => URL.revokeObjectURL(url)),
  };
}

/**
 * A button that draws, and then the two images.
 * @param {import("./run.js").Slot} slot
 * @param {string} prompt
 * @param {ReturnType<imagesOf>} images
 * @param {boolean} atOnce without the button
 * @returns {{buttons: HTMLElement[], figures: HTMLElement}}
 */
export function imagesBlock(slot, prompt, images, atOnce) {
  const status = el("span", { role: "status", class: "soft" });
  const button = el("button", { type: "button" }, "Draw before and after");
  const figures = el("div", { class: "figures" });
  const draw = async () => {
    const before = figure("Your prompt", `Image drawn from your prompt: ${prompt}`, slot.seed, "prompt");
    const after = figure("The rewrite", `Image drawn from the rewrite: ${slot.rewrite.rewrite}`, slot.seed, "rewrite");
    figures.replaceChildren(before.node, after.node);
    button.hidden = true;
    status.textContent = "Drawing…";
    try {
      const [first, second] = images.pair(slot);
      await Promise.all([first.then(before.show), second.then(after.show)]);
      status.textContent = `Both are drawn with seed ${slot.seed}.`;
    } catch (error) {
      figures.replaceChildren();
      button.hidden = false;
      status.textContent = error.name === "AbortError" ? "" : error.message;
    }
  };
  button.addEventListener("click", draw);
  if (atOnce) draw();
  return { buttons: [button, status], figures };
}

/** @param {string} caption @param {string} alt @param {number} seed @param {string} name of the saved file */
function figure(caption, alt, seed, name) {
  const frame = el("div", { class: "frame" });
  const label = el("figcaption", {}, el("span", {}, caption));
  /** @param {Drawn} drawn */
  const show = ({ url, truncated }) => {
    frame.replaceChildren(el("img", { src: url, alt }));
    if (truncated) label.append(el("span", { class: "notice" }, "Its end is not in the image: the renderer reads less."));
    const file = `semdpo-seed-${seed}-${name}.png`;
    label.append(
      el("a", { href: url, download: file, "aria-label": `Save the image of ${caption.toLowerCase()}` }, "Save"),
    );
  };
  return { node: el("figure", {}, frame, label), show };
}
