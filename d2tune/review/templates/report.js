"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// sliders: the divider follows the pointer, the arrow keys and the finger
for (const slider of all(".slider")) {
  const range = slider.querySelector("input");
  const show = () => slider.style.setProperty("--x", `${range.value}%`);
  const follow = event => {
    const box = slider.getBoundingClientRect();
    range.value = Math.round(100 * (event.clientX - box.left) / box.width);
    show();
  };
  range.addEventListener("input", show);
  range.addEventListener("pointerdown", follow);
  range.addEventListener("pointermove", event => { if (event.buttons) follow(event); });
}

for (const button of all(".enlarge")) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const figure = button.closest("figure"), isLarge = figure.classList.toggle("large");
    button.setAttribute("aria-pressed", String(isLarge));
    figure.scrollIntoView({ block: "nearest" });
  });
}

const only = document.getElementById("only-wrong");
if (only) {
  only.closest("label").hidden = false;
  only.addEventListener("change", () => document.body.classList.toggle("only-wrong", only.checked));
}

// tables: a button in each head cell sorts by its column
const order = cell => {
  const number = Number(cell.dataset.order ?? cell.textContent.replace(/[,%]/g, "").trim());
  return Number.isNaN(number) ? cell.textContent.trim() : number;
};
for (const table of all("table.sortable")) {
  all("thead th", table).forEach((head, column) => {
    if (!head.textContent.trim() || table.tBodies[0].rows.length < 2) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const isDown = head.getAttribute("aria-sort") !== "descending" && head.classList.contains("n")
        || head.getAttribute("aria-sort") === "ascending";
      all("thead th", table).forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map(row => [order(row.cells[column]), row]);
      rows.sort(([a], [b]) => typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
      if (isDown) rows.reverse();
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}

// mistakes: filtered by kind and class, sorted, the first ones shown
const list = document.querySelector(".mistakes");
if (list) {
  const FIRST = 48;
  const controls = document.querySelector(".controls"), more = document.getElementById("more-mistakes");
  const chips = all(".chip", controls), ofClass = document.getElementById("mistake-class");
  const sortBy = document.getElementById("mistake-order"), items = [...list.children];
  let limit = FIRST;
  ofClass.closest("label").hidden = ofClass.options.length < 3;
  const number = (item, key) => item.dataset[key] === "" ? -1 : Number(item.dataset[key]);
  const text = (a, b, key) => a.dataset[key].localeCompare(b.dataset[key]);
  const weight = (a, b) => number(a, "order") - number(b, "order");
  const orders = {
    order: weight,
    score: (a, b) => number(b, "score") - number(a, "score") || weight(a, b),
    size: (a, b) => number(b, "size") - number(a, "size"),
    small: (a, b) => number(a, "size") - number(b, "size"),
    kind: (a, b) => text(a, b, "kind") || weight(a, b),
    image: (a, b) => text(a, b, "image") || weight(a, b),
  };
  const update = () => {
    const kinds = new Set(chips.filter(chip => chip.getAttribute("aria-pressed") === "true").map(chip => chip.dataset.kind));
    const fitting = items.filter(item => kinds.has(item.dataset.kind) && (!ofClass.value || item.dataset.class === ofClass.value));
    const shown = new Set(fitting.sort(orders[sortBy.value]).slice(0, limit));
    list.append(...fitting);
    items.forEach(item => { item.hidden = !shown.has(item); });
    more.hidden = shown.size === fitting.length;
    more.textContent = `Show all ${fitting.length}`;
    controls.querySelector("output").textContent = `${shown.size} of ${items.length} shown`;
  };
  // a click on one of several selected kinds shows it alone, a second click shows all again
  chips.forEach(chip => chip.addEventListener("click", () => {
    const pressed = chips.filter(one => one.getAttribute("aria-pressed") === "true");
    const isAlone = pressed.length === 1 && pressed[0] === chip;
    chips.forEach(one => one.setAttribute("aria-pressed", String(isAlone || one === chip)));
    limit = FIRST;
    update();
  }));
  [ofClass, sortBy].forEach(select => select.addEventListener("change", update));
  more.addEventListener("click", () => { limit = Infinity; update(); });
  addEventListener("beforeprint", () => { limit = Infinity; update(); });
  controls.hidden = false;
  update();
}
