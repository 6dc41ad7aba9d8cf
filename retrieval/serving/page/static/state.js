// The state of the page as its address says it; page_state.py reads and writes the same addresses.

const FIELDS = ["index", "mode", "compare", "combine", "box", "k", "candidates", "exhaustive", "exclude_copies", "words", "under", "glob"];
const WEIGHED = /^(?:([0-9.]+):)?(id|upload):(.+)$/;
export let RESULTS = 60; // by default, see setResults
const SUBJECT = "subject"; // in place of a box: the model finds it

export function setResults(count) {
  RESULTS = count;
}

export function parse(search) {
  const given = new URLSearchParams(search);
  const state = { images: given.getAll("image"), minus: given.getAll("minus") };
  for (const name of FIELDS) state[name] = given.get(name) ?? "";
  return state;
}

export function address(state, path = "/") {
  const pairs = new URLSearchParams();
  for (const name of FIELDS) if (state[name]) pairs.set(name, state[name]);
  for (const image of state.images) pairs.append("image", image);
  for (const image of state.minus) pairs.append("minus", image);
  const query = pairs.toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
  return query ? `${path}?${query}` : path;
}

export const asks = (state) => state.images.length > 0 || state.words !== "";
export const isPlain = (state) => state.images.length === 1 && !state.minus.length && !state.box;

const isItem = (image, id) => image === `id:${id}` || image.endsWith(`:id:${id}`);
const without = (images, id) => images.filter((image) => !isItem(image, id));
const withItem = (images, id) => (images.some((image) => isItem(image, id)) ? images : [...images, `id:${id}`]);

export const like = (state, id) => address({ ...state, images: [`id:${id}`], minus: [], box: "", combine: "" });

export const also = (state, id) =>
  address({ ...state, images: withItem(state.images, id), minus: without(state.minus, id), box: "" });

export function away(state, id) {
  const kept = without(state.images, id);
  return address({ ...state, images: kept.length ? kept : state.images, minus: withItem(state.minus, id) });
}

export function removed(state, position, fromMinus) {
  const drop = (images) => images.filter((_, place) => place !== position);
  if (fromMinus) return address({ ...state, minus: drop(state.minus) });
  const images = drop(state.images);
  return address({ ...state, images, box: "", minus: images.length ? state.minus : [] });
}

// One image of the address as the fields of a request.
export function source(image) {
  const [, weight, kind, name] = WEIGHED.exec(image) ?? [];
  if (!kind) throw new Error(`'${image}' is no image of this page: write id:17`);
  const found = kind === "id" ? { id: Number(name) } : { upload: name };
  return weight ? { ...found, weight: Number(weight) } : found;
}

export function request(state, mode) {
  const images = state.images.map(source);
  if (state.box === SUBJECT && images.length) images[0].subject = true;
  else if (state.box && images.length) {
    const box = state.box.split(",").map(Number);
    if (box.length !== 4 || box.some(Number.isNaN)) throw new Error(`'${state.box}' is not a box: write x,y,width,height`);
    images[0].box = box;
  }
  const body = { index: state.index || null, mode, images, minus: state.minus.map(source), k: Number(state.k) || RESULTS };
  if (state.combine) body.combine = state.combine;
  if (state.candidates) body.candidates = Number(state.candidates);
  if (state.exhaustive) body.exhaustive = true;
  if (state.exclude_copies) body.exclude_copies = true;
  if (state.words) body.texts = [state.words];
  if (state.under) body.under = [state.under];
  if (state.glob) body.glob = [state.glob];
  return body;
}
