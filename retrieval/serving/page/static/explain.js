// Explanations of scores: heat maps over the question and a result.

import { explain } from "./api.js";
import { element } from "./cards.js";
import { source } from "./state.js";

const WAIT_MS = 450; // of hovering, before the server is asked
const SCALE = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const SIDE = 224; // px of the drawing

function colour(share) {
  const place = Math.min(0.9999, Math.max(0, share)) * (SCALE.length - 1);
  const low = Math.floor(place), part = place - low;
  return SCALE[low].map((value, channel) => Math.round(value + part * (SCALE[low + 1][channel] - value)));
}

function heat(image, low, high) {
  const canvas = element("canvas", { class: "heat", width: SIDE, height: SIDE, "aria-hidden": "true" });
  const pencil = canvas.getContext("2d");
  const [left, top, right, bottom] = image.region, rows = image.map.length, columns = image.map[0].length;
  const width = ((right - left) * SIDE) / columns, height = ((bottom - top) * SIDE) / rows;
  image.map.forEach((row, y) => row.forEach((value, x) => {
    pencil.fillStyle = `rgb(${colour((value - low) / (high - low || 1)).join(" ")} / 62%)`;
    pencil.fillRect(left * SIDE + x * width, top * SIDE + y * height, width + 0.5, height + 0.5);
  }));
  return canvas;
}

export class Explainer {
  // asked(): the element of the question's picture; say(text): tells the user.
  constructor(asked, say) {
    Object.assign(this, { asked, say, known: new Map(), shown: null, timer: 0, state: null });
  }

  // A new question or other results: nothing that is known is of use any more.
  begin(state) {
    this.hide();
    this.state = state;
    this.known.clear();
  }

  hover(card, mode) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.show(card, mode, false), WAIT_MS);
  }

  leave() {
    clearTimeout(this.timer);
    if (this.shown && !this.shown.isKept) this.hide();
  }

  toggle(card, mode) {
    const isSame = this.shown?.card === card && this.shown.isKept;
    this.hide();
    if (!isSame) this.show(card, mode, true);
  }

  hide() {
    clearTimeout(this.timer);
    for (const drawn of this.shown?.drawn ?? []) drawn.remove();
    this.shown?.card.querySelector(".why")?.setAttribute("aria-pressed", "false");
    this.shown = null;
  }

  async show(card, mode, isKept) {
    const id = Number(card.dataset.id), key = `${mode} ${id}`, { state } = this;
    if (!this.known.has(key)) this.known.set(key, this.fetch(id, mode));
    let found;
    try {
      found = await this.known.get(key);
    } catch (error) {
      this.known.delete(key);
      this.say(error.message);
      return;
    }
    if (this.state !== state || !card.isConnected) return;
    this.hide();
    const values = [found.query, found.candidate].flatMap((image) => image.map.flat());
    const low = Math.min(...values), high = Math.max(...values);
    const drawn = [[card.querySelector(".picture"), found.candidate], [this.asked(), found.query]]
      .filter(([place]) => place)
      .map(([place, image]) => {
        const canvas = heat(image, low, high);
        place.append(canvas);
        return canvas;
      });
    card.querySelector(".why")?.setAttribute("aria-pressed", "true");
    this.shown = { card, drawn, isKept };
    if (isKept) this.say(`Bright cells make most of the score ${found.score.toFixed(4)}.`);
  }

  async fetch(id, mode) {
    const { weight, ...query } = source(this.state.images[0]);
    const body = { index: this.state.index || null, mode, query, candidates: [id] };
    return (await explain(body)).explanations[0];
  }
}
