// A grid of cards. Beyond a few hundred, only the rows near the window exist, so long lists scroll smoothly.

import { waitingCard } from "./cards.js";

const ALL_AT_ONCE = 240;
const ROWS_BEYOND = 3; // kept above and below the window

export class Grid {
  // count: how many cards; get(position): the card's facts, or null while they are being fetched; draw(facts, position, count): its element.
  constructor(list, count, get, draw) {
    Object.assign(this, { list, count, get, draw, shown: new Map(), scheduled: false });
    this.schedule = this.schedule.bind(this);
    list.replaceChildren();
    this.isWindowed = count > ALL_AT_ONCE;
    list.classList.toggle("windowed", this.isWindowed);
    list.style.height = "";
    list.addEventListener("keydown", this.onKey = (event) => this.move(event));
    if (this.isWindowed) {
      addEventListener("scroll", this.schedule, { passive: true });
      this.observer = new ResizeObserver(() => this.measure());
      this.observer.observe(list);
    } else {
      for (let position = 0; position < count; position += 1) list.append(this.make(position));
    }
  }

  close() {
    removeEventListener("scroll", this.schedule);
    this.observer?.disconnect();
    this.list.removeEventListener("keydown", this.onKey);
  }

  make(position) {
    const facts = this.get(position);
    const made = facts ? this.draw(facts, position, this.count) : waitingCard(position, this.count);
    made.dataset.position = position;
    made.dataset.waits = facts ? "" : "yes";
    return made;
  }

  // Lay out again: the width has changed.
  measure() {
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const isSmall = matchMedia("(max-width: 52rem)").matches;
    const gap = (isSmall ? 0.5 : 0.75) * rem, least = (isSmall ? 8.5 : 11) * rem, width = this.list.clientWidth;
    this.columns = Math.max(1, Math.floor((width + gap) / (least + gap)));
    this.step = (width + gap) / this.columns;
    this.cardWidth = this.step - gap;
    this.rowHeight = (isSmall ? 13.2 : 15.2) * rem;
    this.gap = gap;
    this.list.style.height = `${Math.ceil(this.count / this.columns) * this.rowHeight}px`;
    for (const made of this.shown.values()) made.remove();
    this.shown.clear();
    this.render();
  }

  schedule() {
    if (this.scheduled) return;
    this.scheduled = true;
    requestAnimationFrame(() => {
      this.scheduled = false;
      this.render();
    });
  }

  // Facts have arrived: draw the cards that waited for them.
  refresh() {
    if (!this.isWindowed) {
      [...this.list.children].forEach((old, position) => old.dataset.waits && old.replaceWith(this.make(position)));
      return;
    }
    for (const [position, made] of this.shown) {
      if (made.dataset.waits && this.get(position)) {
        made.remove();
        this.shown.delete(position);
      }
    }
    this.schedule();
  }

  render() {
    if (!this.isWindowed || !this.columns) return;
    const above = -this.list.getBoundingClientRect().top;
    const firstRow = Math.max(0, Math.floor(above / this.rowHeight) - ROWS_BEYOND);
    const lastRow = Math.ceil((above + innerHeight) / this.rowHeight) + ROWS_BEYOND;
    const first = firstRow * this.columns, end = Math.min(this.count, Math.max(0, lastRow) * this.columns);
    for (const [position, made] of this.shown) {
      if ((position < first || position >= end) && !made.contains(document.activeElement)) {
        made.remove();
        this.shown.delete(position);
      }
    }
    let before = null; // elements stand in the order of their positions, for the tab key and screen readers
    for (let position = end - 1; position >= first; position -= 1) {
      let made = this.shown.get(position);
      if (!made) {
        made = this.make(position);
        this.place(made, position);
        this.shown.set(position, made);
        this.list.insertBefore(made, before);
      }
      before = made;
    }
  }

  place(made, position) {
    const row = Math.floor(position / this.columns), column = position % this.columns;
    made.style.width = `${this.cardWidth}px`;
    made.style.height = `${this.rowHeight - this.gap}px`;
    made.style.transform = `translate(${column * this.step}px, ${row * this.rowHeight}px)`;
  }

  // Arrow keys move between the pictures.
  move(event) {
    const here = event.target.closest?.(".card");
    const columns = this.columns ?? getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
    const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    if (!here || !by || event.ctrlKey || event.metaKey || event.altKey) return;
    const position = Number(here.dataset.position) + by;
    if (position < 0 || position >= this.count) return;
    event.preventDefault();
    this.focus(position);
  }

  focus(position) {
    if (this.isWindowed && !this.shown.has(position)) {
      const row = Math.floor(position / this.columns);
      scrollTo({ top: this.list.getBoundingClientRect().top + scrollY + row * this.rowHeight - innerHeight / 2 });
      this.render();
    }
    const made = this.isWindowed ? this.shown.get(position) : this.list.children[position];
    made?.querySelector("a.open")?.focus();
  }
}
