// The panel of the question: its pictures, the box on a picture, the form, and files that are dropped or pasted.

import { thumbnail, upload, uploaded } from "./api.js";
import { element, picture, rectangle } from "./cards.js";
import { RESULTS, address, asks, removed, source } from "./state.js";

const LEAST = 0.02; // a smaller box was a click
const TYPED = ["compare", "box", "candidates", "words", "under", "glob"], SWITCHES = ["exhaustive", "exclude_copies"];
const form = document.querySelector("#ask"), asked = document.querySelector("#asked"), drop = document.querySelector("#drop");
const digits = (number) => String(Math.round(number * 1e4) / 1e4);

export const askedPicture = () => asked.querySelector(".piece .picture");

// Show the pictures of a question and the options of an address.
export function showQuestion(state, names, mode, go) {
  asked.replaceChildren(
    ...state.images.map((image, place) => piece(state, image, place, false, names)),
    ...state.minus.map((image, place) => piece(state, image, place, true, names)));
  for (const radio of form.querySelectorAll("[name=mode]")) radio.checked = radio.value === mode;
  for (const name of TYPED) form.elements[name].value = state[name];
  form.elements.combine.value = state.combine || "mean";
  form.elements.k.value = state.k || RESULTS;
  for (const name of SWITCHES) form.elements[name].checked = Boolean(state[name]);
  form.elements.text.value = "";
  form.elements.image.value = "";
  if (state.images.length === 1) takeBoxes(asked.querySelector(".piece"), state, go);
}

function piece(state, image, place, isAway, names) {
  const { id, upload: key, weight } = source(image);
  const name = names[`id:${id}`] ?? (key ? "your picture" : `id:${id}`);
  const alt = `${isAway ? "Picture to move away from" : "Asked picture"} ${place + 1}`;
  const words = `${isAway ? "away from " : ""}${weight ? `${weight} × ` : ""}${name} `;
  const remove = element("a", { href: removed(state, place, isAway), "aria-label": `Remove ${alt.toLowerCase()}` }, "remove");
  return element("figure", { class: isAway ? "piece away" : "piece" },
    picture(key ? uploaded(key) : thumbnail(state.index, id, "", 512), alt), element("figcaption", {}, words, remove));
}

// Let the pointer draw a box on a picture.
function takeBoxes(figure, state, go) {
  const place = figure.querySelector(".picture");
  figure.classList.add("boxed");
  const numbers = state.box.split(",").map(Number);
  if (numbers.length === 4 && numbers.every((number) => number <= 1)) place.append(rectangle(numbers));
  let start = null, drawn = null;
  const at = (event) => {
    const { left, top, width, height } = place.getBoundingClientRect();
    const inside = (value) => Math.min(1, Math.max(0, value));
    return [inside((event.clientX - left) / width), inside((event.clientY - top) / height)];
  };
  const boxOf = ([x, y]) => [Math.min(start[0], x), Math.min(start[1], y), Math.abs(x - start[0]), Math.abs(y - start[1])];
  place.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    start = at(event);
    place.setPointerCapture(event.pointerId);
  });
  place.addEventListener("pointermove", (event) => {
    if (!start) return;
    place.querySelectorAll(".found").forEach((old) => old.remove());
    drawn = rectangle(boxOf(at(event)));
    place.append(drawn);
  });
  place.addEventListener("pointerup", (event) => {
    if (!start) return;
    const box = boxOf(at(event));
    start = null;
    if (box[2] < LEAST || box[3] < LEAST) {
      drawn?.remove();
      return;
    }
    go(address({ ...state, box: box.map(digits).join(",") }));
  });
}

// Return the state that the form asks for, without its files.
function typed(state) {
  const values = { ...state, mode: form.elements.mode.value };
  for (const name of TYPED) values[name] = form.elements[name].value.trim();
  values.combine = form.elements.combine.value === "mean" ? "" : form.elements.combine.value;
  values.k = Number(form.elements.k.value) === RESULTS ? "" : form.elements.k.value;
  for (const name of SWITCHES) values[name] = form.elements[name].checked ? "1" : "";
  return values;
}

// Listen to the form, to drops and to the clipboard. current(): the state; go(address); busy(work): shows that it runs.
export function listen({ current, go, busy, find }) {
  const askWith = (files) => busy(async () => {
    const images = [...files].filter((file) => file.type.startsWith("image/") || !file.type);
    if (!images.length) throw new Error("that holds no picture");
    form.elements.image.value = ""; // a file that can't be used must not be sent again
    const held = [];
    for (const file of images) held.push(`upload:${(await upload(file)).upload}`);
    go(address({ ...typed(current()), images: held, minus: [], box: "" }));
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (form.elements.image.files.length) {
      askWith(form.elements.image.files);
      return;
    }
    busy(async () => {
      const state = typed(current()), text = form.elements.text.value.trim();
      if (text) Object.assign(state, { images: [`id:${(await find(text)).id}`], minus: [], box: "" });
      if (!asks(state)) throw new Error("choose a picture first: drop or paste one, or pick one from the collection");
      go(address(state));
    });
  });
  form.elements.image.addEventListener("change", () => form.elements.image.files.length && askWith(form.elements.image.files));
  form.addEventListener("change", (event) => {
    if (["mode", "compare", "combine", ...SWITCHES].includes(event.target.name) && asks(current())) {
      go(address(typed(current())));
    }
  });
  addEventListener("paste", (event) => event.clipboardData?.files.length && askWith(event.clipboardData.files));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget === null && drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files.length) askWith(event.dataTransfer.files);
  });
}
