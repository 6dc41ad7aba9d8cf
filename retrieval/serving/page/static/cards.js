// The cards of pictures, and small helpers that make elements.

import { original, thumbnail } from "./api.js";
import { also, asks, away, like } from "./state.js";

const SVG = "http://www.w3.org/2000/svg";

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== false) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// A rectangle over a picture; box has fractions of its sides.
export function rectangle([x, y, width, height]) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ class: "found", viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" })) {
    svg.setAttribute(key, value);
  }
  const rect = document.createElementNS(SVG, "rect");
  for (const [key, value] of Object.entries({ x, y, width, height })) rect.setAttribute(key, value);
  svg.append(rect);
  return svg;
}

export function picture(address, alt, box = null) {
  const image = element("img", { src: address, alt, decoding: "async" });
  image.addEventListener("error", () => {
    image.classList.add("lost");
    image.alt = `${alt} (its file is gone or changed)`;
  });
  const made = element("span", { class: "picture" }, image);
  if (box) made.append(rectangle(box));
  return made;
}

// A card of the grid; canExplain adds a button for the explanation of its score.
export function card(state, each, position, count, canExplain = false) {
  const open = element("a", { class: "open", href: like(state, each.id), title: each.path },
    picture(thumbnail(state.index, each.id, each.key), `More like ${each.name}`, each.box));
  const about = element("p", { class: "about" });
  if (each.score !== null) about.append(element("b", { class: "score" }, each.score.toFixed(4)), " ");
  if (each.percentile !== null) {
    const words = "of 100 random pairs of this index, so many score less";
    about.append(element("span", { class: "percentile", title: words }, `${each.percentile.toFixed(1)} %`), " ");
  }
  about.append(element("a", { class: "name", href: original(state.index, each.id), title: each.path }, each.name));
  const actions = element("p", { class: "actions" },
    element("a", { href: also(state, each.id), "aria-label": `Add ${each.name} to the board` }, "+ board"));
  if (asks(state)) actions.append(element("a", { href: away(state, each.id), "aria-label": `Move away from ${each.name}` }, "− away"));
  if (canExplain) actions.append(element("button", { type: "button", class: "why", "aria-pressed": "false", "aria-label": `Explain the score of ${each.name}` }, "why?"));
  return element("li", { class: "card", "data-id": each.id, "aria-posinset": position + 1, "aria-setsize": count }, open, about, actions);
}

export const waitingCard = (position, count) =>
  element("li", { class: "card", "aria-posinset": position + 1, "aria-setsize": count }, element("span", { class: "open" }, "…"));
