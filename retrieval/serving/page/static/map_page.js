// The page of the map: fetches the places, and shows the pictures that are pointed at or chosen.

import { asCard, find, itemsOf, places, thumbnail } from "./api.js";
import { card, element } from "./cards.js";
import { Grid } from "./grid.js";
import { Plane } from "./plane.js";
import { like, parse } from "./state.js";

const PAGE = 100; // items that are fetched at a time
const SLACK = 16; // px between a point and its picture
const data = JSON.parse(document.querySelector("#data").textContent);
const state = { ...parse(location.search), index: data.index };
const mode = state.mode || data.modes[0];
const status = document.querySelector("#status"), near = document.querySelector("#near"), lasso = document.querySelector("#lasso");
const heading = document.querySelector("#chosen-heading"), list = document.querySelector("#chosen"), jump = document.querySelector("#jump");
const known = new Map(); // facts by id
let ids = [], grid = null, latest = -1;

document.documentElement.classList.add("scripted");
const say = (text) => { status.textContent = text; };

async function factsOf(wanted) {
  const missing = wanted.filter((id) => !known.has(id));
  if (missing.length) for (const item of (await itemsOf(state.index, missing)).items) known.set(item.id, asCard(item));
}

async function onNear(position, x, y) {
  latest = position;
  near.hidden = position < 0;
  if (position < 0) return;
  const id = ids[position], box = near.parentElement.getBoundingClientRect();
  await factsOf([id]).catch(() => {});
  if (latest !== position) return;
  const name = known.get(id)?.name ?? `id:${id}`;
  near.replaceChildren(element("img", { src: thumbnail(state.index, id, known.get(id)?.key), alt: "" }), name);
  say(name);
  const onLeft = x > box.width / 2, onTop = y > box.height / 2;
  near.style.left = onLeft ? "auto" : `${x + SLACK}px`;
  near.style.right = onLeft ? `${box.width - x + SLACK}px` : "auto";
  near.style.top = onTop ? "auto" : `${y}px`;
  near.style.bottom = onTop ? `${box.height - y}px` : "auto";
}

function onChoose(positions) {
  grid?.close();
  const chosen = positions.map((position) => ids[position]), asked = new Set();
  heading.textContent = chosen.length ? `${chosen.length} chosen` : "";
  const get = (place) => {
    const facts = known.get(chosen[place]), page = Math.floor(place / PAGE);
    if (!facts && !asked.has(page)) {
      asked.add(page);
      factsOf(chosen.slice(page * PAGE, (page + 1) * PAGE)).then(() => grid.refresh()).catch((error) => say(error.message));
    }
    return facts ?? null;
  };
  grid = new Grid(list, chosen.length, get, (each, place, count) => card(state, each, place, count));
  if (chosen.length) say(`${chosen.length} pictures chosen; they are listed below the map`);
}

const plane = new Plane(document.querySelector("#plane"), {
  onNear, onChoose,
  onOpen: (position) => location.assign(like(state, ids[position])),
  addressOf: (position) => thumbnail(state.index, ids[position], "", 128),
});

lasso.addEventListener("click", () => {
  plane.isLasso = !plane.isLasso;
  lasso.setAttribute("aria-pressed", String(plane.isLasso));
});
document.querySelector("#whole").addEventListener("click", () => plane.whole());
document.querySelector("#mode").addEventListener("change", (event) => event.target.form.submit());
jump.addEventListener("keydown", async (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  try {
    const item = await find(state.index, jump.value.trim());
    known.set(item.id, asCard(item));
    const position = ids.indexOf(item.id);
    plane.centre(position);
    plane.choose([position]);
  } catch (error) {
    say(error.message);
  }
});

if (data.total) {
  say("The map is being drawn …");
  document.body.classList.add("busy");
  places(state.index, mode)
    .then((found) => {
      ids = found.ids;
      plane.show(found.x, found.y);
      say(`${ids.length} pictures by ${found.mode}: pictures that are alike lie near each other`);
    })
    .catch((error) => say(error.message))
    .finally(() => document.body.classList.remove("busy"));
}
