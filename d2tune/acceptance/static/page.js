// The page: which image is open, what is shown of it, and where its keys go.

import { $, make, remember, remembered, say } from "./dom.js";
import { Compare } from "./compare.js";
import { filesOf } from "./drop.js";
import { Judge } from "./judge.js";
import { ImageList } from "./list.js";
import { Refused, getBlob, getJson, request } from "./server.js";
import { View } from "./view.js";

const KEPT = 6;

class Page {
  constructor(info) {
    this.info = info;
    this.model = Math.min(remembered(`model.${info.session}`, 0), info.models.length - 1);
    this.hidden = new Set();
    this.masks = true;
    this.truthMode = remembered("truth", "off");
    this.personName = remembered("person", "");
    this.fetched = new Map();
    this.row = null;
    this.view = new View($("panes"), {
      pick: (object, pane) => this.mode.pick(object, pane),
      hover: (object, pane, event) => this.hover(object, pane, event),
      place: (x, y) => this.mode.addMissed(x, y),
    });
    this.list = new ImageList({ isBlind: info.is_blind, onOpen: (row) => this.open(row) });
    this.mode = info.is_blind ? new Compare(this) : new Judge(this);
    this.heading();
    this.controls();
    this.help();
    this.uploads();
  }

  get modelInfo() {
    return this.info.models[this.model];
  }

  heading() {
    $("title").textContent = this.info.title;
    document.title = this.info.title;
    const { models, is_blind: isBlind } = this.info;
    if (models.length > 1) {
      $("model-label").hidden = false;
      $("model").append(...models.map((one, at) => make("option", { value: String(at), text: one.name })));
      $("model").value = String(this.model);
      $("model").addEventListener("change", () => {
        remember(`model.${this.info.session}`, Number($("model").value));
        location.reload();
      });
    }
    $("model-name").textContent = isBlind ? "Two models, without their names" : models.length === 1 ? models[0].name : "";
    if (this.info.two_models.length) {
      $("open-results").before(make("a", { id: "two-models", class: "button", href: "models", text: "Compare two models" }));
    }
    this.showPerson();
    if (this.info.skipped_count) {
      const { name, reason } = this.info.skipped[0];
      $("banner").textContent = `${this.info.skipped_count} of the files cannot be shown, such as ${name}: ${reason}.`;
      $("banner").hidden = false;
    }
  }

  showPerson() {
    $("person").textContent = this.personName || "Who judges?";
    $("person").setAttribute("aria-label", this.personName ? `Judged by ${this.personName}. Change` : "Who judges?");
  }

  // the name of who judges, asked for where it is not known; empty where it is not given
  person({ isAsked = false } = {}) {
    if (this.personName && !isAsked) return Promise.resolve(this.personName);
    const dialog = $("person-dialog");
    $("person-name").value = this.personName;
    return new Promise((resolve) => {
      dialog.addEventListener("close", () => {
        const name = $("person-name").value.trim();
        if (dialog.returnValue === "ok" && name) {
          this.personName = name;
          remember("person", name);
          this.showPerson();
        }
        resolve(this.personName);
      }, { once: true });
      dialog.returnValue = "";
      if (!dialog.open) dialog.showModal();
    });
  }

  controls() {
    $("previous").addEventListener("click", () => this.step(-1));
    $("next").addEventListener("click", () => this.step(1));
    $("zoom-in").addEventListener("click", () => this.view.zoomBy(1.5));
    $("zoom-out").addEventListener("click", () => this.view.zoomBy(1 / 1.5));
    $("zoom-fit").addEventListener("click", () => this.view.fit());
    $("masks").addEventListener("click", () => this.toggleMasks());
    $("truth").value = this.truthMode;
    $("truth").addEventListener("change", () => this.setTruth($("truth").value));
    // not a submit button: as the first of the form, Enter in the field would press it
    $("person-cancel").addEventListener("click", () => $("person-dialog").close());
    $("person").addEventListener("click", () => this.person({ isAsked: true }));
    $("open-results").addEventListener("click", () => this.results());
    addEventListener("hashchange", () => this.openFromAddress());
    addEventListener("keydown", (event) => this.key(event));
  }

  toggleMasks() {
    this.masks = !this.masks;
    $("masks").setAttribute("aria-pressed", String(this.masks));
    this.mode.render();
  }

  setTruth(mode) {
    this.truthMode = mode;
    $("truth").value = mode;
    remember("truth", mode);
    this.mode.render();
  }

  nextTruth() {
    if (!this.mode.content?.truth) return say("This image has no ground truth");
    const modes = ["off", "beside", "over"];
    this.setTruth(modes[(modes.indexOf(this.truthMode) + 1) % modes.length]);
    say($("truth").selectedOptions[0].textContent);
  }

  async results() {
    $("results").replaceChildren(make("p", { class: "soft", text: "Counting" }));
    $("results-dialog").showModal();
    try {
      await this.mode.results($("results"));
    } catch (error) {
      $("results").replaceChildren(make("p", { text: error.message }));
    }
  }

  // the keys

  get keys() {
    return [
      ...this.mode.keys,
      ["→", "next image", () => this.step(1)],
      ["←", "previous image", () => this.step(-1)],
      ["H", "hide or show the masks", () => this.toggleMasks()],
      ["G", "ground truth: hidden, beside, over it", () => this.nextTruth()],
      ["+", "zoom in", () => this.view.zoomBy(1.5)],
      ["-", "zoom out", () => this.view.zoomBy(1 / 1.5)],
      ["0", "whole image", () => this.view.fit()],
      ["C", "comment", () => $("comment").focus()],
      ["R", "results", () => this.results()],
      ["?", "these keys", () => $("help-dialog").showModal()],
    ];
  }

  help() {
    $("keys").append(...this.keys.map(([key, words]) =>
      make("div", {}, make("dt", {}, make("kbd", { text: key })), make("dd", { text: words }))));
    $("use-keys").checked = remembered("keys", true);
    $("use-keys").addEventListener("change", () => remember("keys", $("use-keys").checked));
    $("open-help").addEventListener("click", () => $("help-dialog").showModal());
  }

  key(event) {
    const isTyped = event.target.closest("input:not([type=checkbox]):not([type=range]), textarea, select, dialog");
    if (event.ctrlKey || event.metaKey || event.altKey || isTyped || !$("use-keys").checked) {
      if (event.key === "Escape" && event.target === $("comment")) $("stage").focus();
      return;
    }
    if (event.key === "Escape" && this.view.isPlacing) return this.mode.place(false);
    const isMoved = event.key.startsWith("Arrow");
    if (isMoved && event.target.closest("[type=range]")) return;
    const names = { ArrowRight: "→", ArrowLeft: "←", "=": "+", _: "-" };
    const wanted = (names[event.key] ?? event.key).toUpperCase();
    const hit = this.keys.find(([key]) => key === wanted);
    if (!hit) return;
    event.preventDefault();
    hit[2]();
  }

  hover(object, pane, event) {
    if (!this.mode.content) return;
    const tip = $("tip");
    tip.hidden = object === null || this.view.isPlacing;
    if (!tip.hidden) {
      tip.textContent = this.mode.describe(object);
      const box = $("panes").getBoundingClientRect();
      const left = Math.min(event.clientX - box.left + 14, box.width - tip.offsetWidth - 6);
      tip.style.left = `${Math.max(6, left)}px`;
      tip.style.top = `${Math.max(6, event.clientY - box.top - tip.offsetHeight - 10)}px`;
    }
    const key = object && (pane.content.isMain || this.info.is_blind) ? object.number : this.mode.selected;
    if (key !== this.view.highlighted) this.mode.highlight(key);
  }

  renderClasses(objects) {
    const counts = new Map(this.modelInfo.classes.map((name) => [name, 0]));
    for (const one of objects) counts.set(one.class_name, (counts.get(one.class_name) ?? 0) + 1);
    const focused = document.activeElement?.dataset?.class;
    $("classes").replaceChildren(...[...counts].map(([name, count]) => {
      const box = make("input", { type: "checkbox", role: "switch", "data-class": name, checked: !this.hidden.has(name), onchange: () => {
        if (box.checked) this.hidden.delete(name);
        else this.hidden.add(name);
        this.mode.render();
      } });
      const color = this.modelInfo.colors[name] ?? "#cccccc";
      return make("label", { class: "check" }, box, make("i", { class: "swatch", style: { "--c": color } }),
        make("span", { class: "grow", text: name }), make("span", { class: "soft", text: String(count) }));
    }));
    if (focused !== undefined) $("classes").querySelector(`[data-class="${CSS.escape(focused)}"]`)?.focus();
  }

  // the images

  async start() {
    this.list.fill(await getJson(this.info.is_blind ? "images" : `images?model=${this.model}`));
    this.progress();
    this.ready(false);
    $("stage").setAttribute("aria-busy", "false");
    $("empty").hidden = this.list.rows.length > 0;
    $("previous").disabled = $("next").disabled = true;
    if (!this.openFromAddress()) {
      const first = this.list.rows.find((row) => !this.list.isDone(row)) ?? this.list.rows[0];
      if (first) await this.open(first);
    }
  }

  openFromAddress() {
    const id = Number(/^#image=(\d+)$/.exec(location.hash)?.[1]);
    const row = this.list.rows.find((one) => one.id === id);
    if (row && row.id !== this.row?.id) this.open(row);
    return Boolean(row);
  }

  contents(row) {
    if (!this.fetched.has(row.id)) {
      const bitmap = getBlob(`images/${row.id}/pixels`).then((blob) => createImageBitmap(blob));
      const made = Promise.all([this.mode.fetchContent(row), bitmap]);
      made.catch(() => this.fetched.delete(row.id));
      this.fetched.set(row.id, made);
      for (const id of this.fetched.keys()) {
        if (this.fetched.size <= KEPT) break;
        if (id !== row.id && id !== this.row?.id) this.fetched.delete(id);
      }
    }
    return this.fetched.get(row.id);
  }

  forget(row) {
    this.fetched.delete(row.id);
  }

  async open(row) {
    this.row = row;
    this.mode.leave();
    this.ready(false);
    history.replaceState(null, "", `#image=${row.id}`);
    this.list.open(row);
    $("name").textContent = row.is_added ? row.name.replace(/^added\//, "") : row.name;
    $("tip").hidden = true;
    $("previous").disabled = !this.list.step(-1);
    $("next").disabled = !this.list.step(1);
    const timer = setTimeout(() => this.waiting("Predicting"), 250);
    try {
      const [content, bitmap] = await this.contents(row);
      if (this.row !== row) return;
      this.view.setImage(bitmap, row.width_px, row.height_px);
      this.mode.open(row, content);
      this.waiting(null);
      this.ready(true);
      this.prefetch();
    } catch (error) {
      if (this.row !== row) return;
      this.view.setImage(null, row.width_px, row.height_px);
      $("stage").setAttribute("aria-busy", "false");
      this.waiting(error instanceof Refused ? error.message : "The server does not answer.", true);
    } finally {
      clearTimeout(timer);
    }
  }

  ready(isReady) {
    $("stage").setAttribute("aria-busy", String(!isReady));
    const controls = [...$("verdict").children, $("add-missed"), $("score"), $("comment")];
    for (const control of controls) control.disabled = !isReady || this.mode.isClosed === true;
  }

  waiting(words, isError = false) {
    $("waiting").hidden = words === null;
    $("waiting").textContent = words ?? "";
    $("waiting").classList.toggle("error", isError);
  }

  prefetch() {
    const next = this.list.nextOpen() ?? this.list.step(1);
    if (next && next !== this.row) this.contents(next).catch(() => {});
  }

  step(by) {
    const row = this.list.step(by);
    if (row) this.open(row);
    else say(by > 0 ? "This is the last image" : "This is the first image");
  }

  goOn() {
    const row = this.list.nextOpen();
    if (row) this.open(row);
    else say("All images are judged. The results have the report");
  }

  updated(row) {
    this.list.update(row);
    this.progress();
  }

  progressWords() {
    return `${this.list.done} of ${this.list.rows.length} ${this.info.is_blind ? "compared" : "judged"}`;
  }

  progress() {
    const total = this.list.rows.length;
    $("progress").textContent = this.progressWords();
    $("bar").setAttribute("aria-valuemax", String(Math.max(1, total)));
    $("bar").setAttribute("aria-valuenow", String(this.list.done));
    $("bar").setAttribute("aria-valuetext", this.progressWords());
    $("bar").firstElementChild.style.width = `${total ? (100 * this.list.done) / total : 0}%`;
  }

  // images that come through the page

  uploads() {
    for (const id of ["files", "camera"]) {
      $(id).addEventListener("change", () => {
        this.addFiles([...$(id).files]);
        $(id).value = "";
      });
    }
    const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      $("drop").hidden = false;
    });
    addEventListener("dragleave", (event) => {
      if (event.relatedTarget === null) $("drop").hidden = true;
    });
    addEventListener("drop", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      $("drop").hidden = true;
      filesOf(event.dataTransfer).then((files) => this.addFiles(files));
    });
  }

  async addFiles(files) {
    if (!files.length) return say("There are no images in it");
    let opened = null;
    const refused = [];
    for (const [at, file] of files.entries()) {
      say(`Adding ${at + 1} of ${files.length}`);
      try {
        if (file.size > this.info.max_upload_bytes) {
          throw new Error(`${file.name} is larger than ${Math.round(this.info.max_upload_bytes / 1e6)} MB`);
        }
        const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
        const answer = await request(`images?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file, type });
        const row = await answer.json();
        this.list.add({ wrong_marks: 0, ...row });
        opened ??= this.list.rows.find((one) => one.id === row.id);
      } catch (error) {
        refused.push(error.message);
      }
    }
    $("empty").hidden = this.list.rows.length > 0;
    this.progress();
    if (opened) await this.open(opened);
    if (refused.length) {
      $("banner").textContent = `${refused.length} of ${files.length} not added. ${refused[0]}`;
      $("banner").hidden = false;
    } else {
      say(`${files.length === 1 ? "1 image" : `${files.length} images`} added`);
    }
  }
}

try {
  const page = new Page(await getJson("state"));
  await page.start();
  document.body.dataset.ready = "true";
} catch (error) {
  $("banner").textContent = `The page cannot be loaded: ${error.message}.`;
  $("banner").hidden = false;
}
