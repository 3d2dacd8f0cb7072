// The list of images with their thumbnails and what is judged already.

import { $, counted, make } from "./dom.js";
import { getBlob } from "./server.js";

const STATES = {
  right: { sign: "✓", word: "right" },
  wrong: { sign: "✕", word: "wrong" },
  left: { sign: "A", word: "A is better" },
  "right side": { sign: "B", word: "B is better" },
  same: { sign: "=", word: "no difference" },
};

export class ImageList {
  constructor({ isBlind, onOpen }) {
    this.isBlind = isBlind;
    this.onOpen = onOpen;
    this.rows = [];
    this.items = new Map();
    this.current = null;
    this.host = $("images");
    this.watcher = new IntersectionObserver((entries) => this.thumbnails(entries), { rootMargin: "300px" });
    const choices = isBlind
      ? [["all", "All images"], ["open", "To compare"], ["done", "Compared"]]
      : [["all", "All images"], ["open", "To judge"], ["right", "Right"], ["wrong", "Wrong or marked"]];
    $("filter").append(...choices.map(([value, text]) => make("option", { value, text })));
    $("filter").addEventListener("change", () => this.filter());
  }

  fill(rows) {
    this.rows = rows;
    this.items.clear();
    this.watcher.disconnect();
    this.host.replaceChildren(...rows.map((row) => this.item(row)));
    this.filter();
  }

  add(row) {
    if (this.items.has(row.id)) return;
    this.rows.push(row);
    this.host.append(this.item(row));
    this.filter();
  }

  item(row) {
    const image = make("img", { alt: "", width: "64", height: "48" });
    const name = make("span", { class: "name", text: row.name.replace(/^.*\//, "") });
    const state = make("span", { class: "state" });
    const button = make("button", { type: "button", title: row.name, onclick: () => this.onOpen(row) }, image, name, state);
    const element = make("li", {}, button);
    this.items.set(row.id, { element, button, image, state, row });
    button.dataset.image = row.id;
    this.watcher.observe(button);
    this.update(row);
    return element;
  }

  async thumbnails(entries) {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      this.watcher.unobserve(entry.target);
      const item = this.items.get(Number(entry.target.dataset.image));
      try {
        item.image.src = URL.createObjectURL(await getBlob(`images/${item.row.id}/thumbnail`));
      } catch {
        item.image.classList.add("broken");
      }
    }
  }

  isDone(row) {
    return row.verdict !== null;
  }

  update(row) {
    const { state, button } = this.items.get(row.id);
    const known = STATES[this.isBlind && row.verdict === "right" ? "right side" : row.verdict];
    const marks = row.wrong_marks ? counted(row.wrong_marks, "mark") : "";
    const words = [known?.word ?? (this.isBlind ? "to compare" : "to judge"), marks].filter(Boolean).join(", ");
    state.replaceChildren(
      make("span", { class: `sign ${this.isBlind ? "" : (row.verdict ?? "")}`, "aria-hidden": "true", text: known?.sign ?? "" }),
      make("span", { class: "words", text: words }),
    );
    button.setAttribute("aria-current", String(this.current === row.id));
  }

  filter() {
    const wanted = $("filter").value;
    let shown = 0;
    for (const { element, row } of this.items.values()) {
      const fits =
        wanted === "all" ||
        row.id === this.current ||
        (wanted === "open" && !this.isDone(row)) ||
        (wanted === "done" && this.isDone(row)) ||
        (wanted === "right" && row.verdict === "right") ||
        (wanted === "wrong" && (row.verdict === "wrong" || row.wrong_marks > 0));
      element.hidden = !fits;
      shown += fits;
    }
    $("list-empty").hidden = shown > 0;
    $("list-empty").textContent = this.rows.length ? "No image of this kind." : "No images yet.";
  }

  open(row) {
    const before = this.current;
    this.current = row.id;
    if (before !== null && this.items.has(before)) this.update(this.items.get(before).row);
    this.update(row);
    this.filter();
    this.reveal(this.items.get(row.id).element);
  }

  // scrolls the list alone, and not the page as scrollIntoView does
  reveal(element) {
    const box = this.host.getBoundingClientRect();
    const item = element.getBoundingClientRect();
    if (item.top < box.top) this.host.scrollTop += item.top - box.top;
    if (item.bottom > box.bottom) this.host.scrollTop += item.bottom - box.bottom;
    if (item.left < box.left) this.host.scrollLeft += item.left - box.left;
    if (item.right > box.right) this.host.scrollLeft += item.right - box.right;
  }

  // the image that many steps away among those that the filter shows
  step(by) {
    const shown = this.rows.filter((row) => !this.items.get(row.id).element.hidden);
    const at = shown.findIndex((row) => row.id === this.current);
    return shown[at + by] ?? null;
  }

  // the first image after the current one that is not judged, else the first of all
  nextOpen() {
    const at = this.rows.findIndex((row) => row.id === this.current);
    const order = [...this.rows.slice(at + 1), ...this.rows.slice(0, Math.max(0, at))];
    return order.find((row) => !this.isDone(row)) ?? null;
  }

  get done() {
    return this.rows.filter((row) => this.isDone(row)).length;
  }
}
