// Builds elements. Texts become text nodes, so that nothing a user or a server sends is read as markup.

/**
 * @param {string} tag
 * @param {Record<string, string | number | boolean | null | undefined | EventListener>} props attributes; `onclick` and
 *   its like are listeners; false and null leave an attribute out
 * @param {...(Node | string | null | undefined)} children
 * @returns {HTMLElement}
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/**
 * The element with an id, which is in index.html.
 * @param {string} id
 * @returns {any}
 */
export const byId = (id) => document.getElementById(id);

/**
 * Text for screen readers only.
 * @param {string} text
 */
export const spoken = (text) => el("span", { class: "spoken" }, text);
