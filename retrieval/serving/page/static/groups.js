// The pages of duplicates and of clusters: arrow keys move between pictures and groups, and the page waits for the work.

import { progress } from "./api.js";

const data = JSON.parse(document.querySelector("#data").textContent);
const status = document.querySelector("#status");

document.documentElement.classList.add("scripted");

// Left and right go to the next picture, up and down to the next group.
addEventListener("keydown", (event) => {
  const here = event.target.closest?.(".card");
  if (!here || event.ctrlKey || event.metaKey || event.altKey) return;
  const cards = [...document.querySelectorAll(".group .card")], groups = [...document.querySelectorAll(".group")];
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key], down = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const next = by ? cards[cards.indexOf(here) + by] : down && groups[groups.indexOf(here.closest(".group")) + down]?.querySelector(".card");
  if (!next) return;
  event.preventDefault();
  next.querySelector("a.open").focus();
});

document.addEventListener("error", (event) => {
  if (event.target.matches?.(".picture img")) event.target.classList.add("lost");
}, true);

async function wait() {
  document.body.classList.add("busy");
  try {
    for (;;) {
      const { stage, done, total } = await progress(data.progress);
      if (!stage) break;
      status.textContent = total ? `${stage}: ${done} of ${total} …` : `${stage} …`;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    location.reload();
  } catch (error) {
    status.textContent = error.message;
    document.body.classList.remove("busy");
  }
}

if (data.progress) wait();
