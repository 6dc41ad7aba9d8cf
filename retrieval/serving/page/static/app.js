// The search page: takes over the page that the server rendered, and follows its links without loading a new one.

import { asCard, find, items, search, shortName } from "./api.js";
import { card, element } from "./cards.js";
import { Explainer } from "./explain.js";
import { Grid } from "./grid.js";
import { askedPicture, listen, showQuestion } from "./question.js";
import { asks, isPlain, parse, request, setResults } from "./state.js";

const PAGE = 200; // items that the collection fetches at a time
const data = JSON.parse(document.querySelector("#data").textContent);
const columns = document.querySelector("#columns"), status = document.querySelector("#status"), main = document.querySelector("#main");
const say = (text) => { status.textContent = text; };
const explainer = new Explainer(askedPicture, say);
const names = { ...data.names };
let state = { ...parse(location.search), index: data.index };
let grids = [], running = null, loaded = location.search;

document.documentElement.classList.add("scripted");
setResults(data.results);
if (matchMedia("(max-width: 52rem)").matches) document.querySelector("details").open = false; // results come first on a phone

const modesOf = (asked) => [...new Set([asked.mode || data.modes[0], asked.compare].filter(Boolean))];

function fail(error) {
  if (error.name === "AbortError") return;
  main.querySelectorAll(".banner").forEach((old) => old.remove());
  status.before(element("p", { class: "banner", role: "alert" }, error.message));
  say("");
}

async function busy(work) {
  document.body.classList.add("busy");
  try {
    await work();
  } catch (error) {
    fail(error);
  } finally {
    document.body.classList.remove("busy");
  }
}

function showColumns(made) {
  grids.forEach((grid) => grid.close());
  columns.classList.toggle("two", made.length > 1);
  columns.replaceChildren(...made.map(({ label, notes }) => element("section", { class: "column", "aria-label": label, "data-mode": label },
    element("h2", {}, label), ...notes.map((note) => element("p", { class: "note" }, note)), element("ul", { class: "cards", role: "list" }))));
  grids = made.map(({ count, get, canExplain }, place) => {
    const list = columns.children[place].querySelector(".cards");
    return new Grid(list, count, get, (each, position, all) => card(state, each, position, all, canExplain));
  });
}

function showResults(found) {
  explainer.begin(state);
  const canExplain = isPlain(state);
  showColumns(found.map(({ label, notes, cards }) => ({ label, notes, count: cards.length, get: (place) => cards[place], canExplain })));
  const said = found.map(({ label, cards, ms }) => `${cards.length} by ${label} in ${Math.round(ms)} ms`);
  say(found.some(({ cards }) => cards.length) ? said.join(", ") : "Nothing was found. Ask with another picture, or with fewer limits.");
}

function showCollection() {
  const pages = new Map();
  const get = (position) => {
    const number = Math.floor(position / PAGE), page = pages.get(number);
    if (page) return page[position % PAGE] ?? null;
    if (!pages.has(number)) {
      pages.set(number, null);
      items(state.index, number * PAGE, PAGE)
        .then((found) => {
          pages.set(number, found.items.map(asCard));
          grids[0]?.refresh();
        })
        .catch((error) => {
          pages.delete(number);
          fail(error);
        });
    }
    return null;
  };
  explainer.begin(state);
  showColumns([{ label: "All pictures", notes: [], count: data.total, get, canExplain: false }]);
  say(`${data.total} pictures`);
}

async function load() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  loaded = location.search;
  state = { ...parse(loaded), index: data.index };
  main.querySelectorAll(".banner").forEach((old) => old.remove());
  document.title = `${asks(state) ? "Results" : state.index} – DiffSim`;
  showQuestion(state, names, modesOf(state)[0], go);
  if (!asks(state)) {
    showCollection();
    return;
  }
  say("Searching …");
  await busy(async () => {
    const found = [];
    for (const mode of modesOf(state)) {
      const answer = await search(request(state, mode), signal);
      for (const each of answer.query.images ?? [answer.query]) remember(each);
      found.push({ label: answer.mode, notes: answer.notes, cards: answer.results.map(asCard), ms: answer.timing_ms.total });
    }
    if (signal.aborted) return;
    showQuestion(state, names, modesOf(state)[0], go);
    showResults(found);
  });
}

// Names of the question's items are known from cards that were shown.
function remember({ path }) {
  if (path && isPlain(state) && state.images[0].startsWith("id:")) names[state.images[0]] = shortName(path);
}

function go(address) {
  if (address !== location.pathname + location.search) history.pushState(null, "", address);
  load();
}

// Links of this page and index are followed here; others, new tabs and downloads are the browser's.
addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const target = new URL(link.href);
  const isHere = target.origin === location.origin && target.pathname === "/" && (parse(target.search).index || data.index) === data.index;
  if (!isHere || link.getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  const from = link.closest(".card");
  const name = from?.querySelector(".name")?.textContent;
  if (name) names[`id:${from.dataset.id}`] = name;
  go(target.pathname + target.search);
  if (link.matches(".open")) scrollTo({ top: 0 });
  main.focus({ preventScroll: true });
});
addEventListener("popstate", () => location.search !== loaded && load()); // a link to a part of the page changes nothing

columns.addEventListener("click", (event) => {
  const button = event.target.closest(".why");
  if (button) explainer.toggle(button.closest(".card"), button.closest(".column").dataset.mode);
});
const hovers = () => document.querySelector("#hover").checked && isPlain(state);
columns.addEventListener("pointerover", (event) => {
  const over = event.target.closest?.(".card");
  if (over?.dataset.id && event.pointerType === "mouse" && hovers() && !over.contains(event.relatedTarget)) {
    explainer.hover(over, over.closest(".column").dataset.mode);
  }
});
columns.addEventListener("pointerout", (event) => {
  const left = event.target.closest?.(".card");
  if (left && !left.contains(event.relatedTarget)) explainer.leave();
});
addEventListener("keydown", (event) => event.key === "Escape" && explainer.hide());

listen({ current: () => state, go, busy, find: (text) => find(data.index, text) });
if (!document.querySelector(".banner[role=alert]") || asks(state)) {
  showQuestion(state, names, modesOf(state)[0], go);
  if (data.columns.length && asks(state)) showResults(data.columns);
  else if (!asks(state)) showCollection();
}
