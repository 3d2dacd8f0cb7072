// Judging the predictions of one model: right or wrong, what is wrong with each object, what was missed.

import { $, counted, interval, make, percent, remember, remembered, say } from "./dom.js";
import { Saver, download, getJson, request } from "./server.js";
import { prepared } from "./view.js";

const DECISIONS = [
  ["accepted", "Accepted"],
  ["accepted_with_conditions", "Accepted with conditions"],
  ["refused", "Not accepted"],
];

export class Judge {
  constructor(page) {
    this.page = page;
    this.selected = null;
    this.globalScore = remembered(`score.${page.info.session}.${page.model}`, page.modelInfo.starting_score);
    this.saver = new Saver(page.info.session, {
      bodyOf: (judgment, seen) => ({ judgment, seen }),
      onSaved: (address, saved) => this.saved(address, saved),
      onConflict: (address, saved) => this.conflict(address, saved),
    });
    this.makeControls();
    setTimeout(() => this.saver.flush());
  }

  makeControls() {
    const { page } = this;
    $("verdict").append(
      make("button", { type: "button", id: "right", class: "right", "aria-pressed": "false", onclick: () => this.judge("right") },
        make("span", { "aria-hidden": "true", text: "✓ " }), "Right"),
      make("button", { type: "button", id: "wrong", class: "wrong", "aria-pressed": "false", onclick: () => this.judge("wrong") },
        make("span", { "aria-hidden": "true", text: "✕ " }), "Wrong"),
    );
    // below it there is nothing to show
    $("score").min = String(Math.floor(100 * page.modelInfo.lowest_score) / 100);
    $("score").addEventListener("input", () => this.setScore(Number($("score").value)));
    $("add-missed").addEventListener("click", () => this.place(!page.view.isPlacing));
    $("comment").addEventListener("input", () => {
      if (!this.content) return;
      this.content.judgment.comment = $("comment").value;
      this.saveSoon();
    });
    addEventListener("pagehide", () => this.saveNow());
  }

  // what is typed is saved when there is a pause, at the latest when another image is opened or the page is left
  saveSoon() {
    clearTimeout(this.timer);
    this.waiting = this.content;
    this.timer = setTimeout(() => this.saveNow(), 500);
  }

  saveNow() {
    clearTimeout(this.timer);
    const content = this.waiting;
    this.waiting = null;
    if (content) this.save(content, { quiet: true });
  }

  fetchContent(row) {
    return getJson(`images/${row.id}/objects?model=${this.page.model}`);
  }

  address(row) {
    return `images/${row.id}/judgment?model=${this.page.model}`;
  }

  // before another image is opened: until it is there, nothing can be judged
  leave() {
    this.saveNow();
    this.place(false);
    this.content = null;
    this.selected = null;
    $("comment").value = "";
    $("objects").replaceChildren();
    $("editor").hidden = true;
  }

  open(row, given) {
    const colors = this.page.modelInfo.colors;
    const unsaved = this.saver.unsaved(this.address(row));
    const latest = unsaved ?? given.saved?.judgment ?? null;
    this.content = {
      row,
      objects: given.objects.map((one) => prepared(one, colors)),
      truth: given.truth?.map((one) => prepared(one, colors, "truth")) ?? null,
      seen: given.saved?.revision ?? null,
      savedAt: given.saved?.judged_at ?? null,
      savedBy: latest?.judged_by ?? null,
      judgment: {
        verdict: latest?.verdict ?? null,
        comment: latest?.comment ?? "",
        marks: latest ? latest.marks.map((mark) => ({ ...mark })) : [],
      },
      score: latest ? latest.min_score : this.globalScore,
    };
    this.selected = null;
    $("comment").value = this.content.judgment.comment;
    this.render();
  }

  get shown() {
    if (!this.content) return [];
    return this.content.objects.filter((one) => one.score === null || one.score >= this.content.score);
  }

  markOf(number) {
    return this.content.judgment.marks.find((mark) => mark.object === number) ?? null;
  }

  setScore(value) {
    this.globalScore = value;
    remember(`score.${this.page.info.session}.${this.page.model}`, value);
    if (!this.content) return;
    this.content.score = value;
    if (this.selected !== null && !this.shown.some((one) => one.number === this.selected)) this.selected = null;
    this.render();
    const { judgment } = this.content;
    if (judgment.verdict || judgment.marks.length) this.saveSoon();
  }

  async judge(verdict) {
    if (!this.content || !(await this.page.person())) return;
    const content = this.content;
    const isTakenBack = content.judgment.verdict === verdict;
    content.judgment.verdict = isTakenBack ? null : verdict;
    this.save(content);
    this.render();
    if (isTakenBack) say("Verdict taken back");
    else if (verdict === "right") this.page.goOn();
    else if (!content.judgment.marks.some((mark) => mark.kind !== "right")) {
      say("Wrong. Select the objects that are wrong, or add what was missed");
    }
  }

  async mark(number, kind) {
    if (!(await this.page.person())) return;
    const { judgment } = this.content;
    const before = this.markOf(number);
    judgment.marks = judgment.marks.filter((mark) => mark !== before);
    if (before?.kind !== kind) judgment.marks.push({ kind, object: number, comment: before?.comment ?? "" });
    if (kind !== "right" && before?.kind !== kind) judgment.verdict ??= "wrong";
    this.save(this.content);
    this.render();
  }

  async addMissed(x, y) {
    this.place(false);
    if (!this.content) return;
    if (!(await this.page.person())) return;
    const { judgment } = this.content;
    const classes = this.page.modelInfo.classes;
    const mark = { kind: "missed", x: Math.round(x * 10) / 10, y: Math.round(y * 10) / 10, comment: "" };
    if (classes.length === 1) mark.class_name = classes[0];
    judgment.marks.push(mark);
    judgment.verdict ??= "wrong";
    this.selected = this.keyOf(mark);
    this.save(this.content);
    this.render();
    $("editor").querySelector("select").focus();
  }

  keyOf(mark) {
    return `missed ${this.content.judgment.marks.filter((one) => one.kind === "missed").indexOf(mark) + 1}`;
  }

  place(isOn) {
    this.page.view.isPlacing = isOn;
    $("add-missed").setAttribute("aria-pressed", String(isOn));
    $("add-missed").textContent = isOn ? "Cancel" : "Add a missed one";
    $("panes").classList.toggle("placing", isOn);
    if (isOn) {
      this.page.view.panes[0]?.canvas.focus();
      const isTouched = matchMedia("(pointer: coarse)").matches;
      const keys = ". With keys: move it under the cross with the arrows, then Enter";
      say(isTouched ? "Tap the missed object" : `Click the missed object${keys}`);
    }
    this.page.view.draw();
  }

  async save(content, { quiet = false } = {}) {
    if (content === this.waiting) {
      clearTimeout(this.timer);
      this.waiting = null;
    }
    const person = quiet ? await this.page.person() : this.page.personName;
    if (!person) return;
    const judgment = { ...content.judgment, min_score: content.score, judged_by: person };
    judgment.marks = judgment.marks.map((mark) => ({ ...mark }));
    content.savedBy = person;
    Object.assign(content.row, {
      verdict: judgment.verdict,
      wrong_marks: judgment.marks.filter((mark) => mark.kind !== "right").length,
    });
    this.page.updated(content.row);
    this.page.forget(content.row);
    this.saver.put(this.address(content.row), judgment, content.seen);
  }

  saved(address, saved) {
    if (this.content && this.address(this.content.row) === address) {
      this.content.seen = saved.revision;
      this.content.savedAt = saved.judged_at;
      this.renderJudgedBy();
    }
    say(`Saved. ${this.page.progressWords()}`);
  }

  conflict(address, saved) {
    say(`Not saved: ${saved.judgment.judged_by} has judged this image meanwhile. That judgment is shown`);
    const row = this.page.list.rows.find((one) => this.address(one) === address);
    if (!row) return;
    const wrong = saved.judgment.marks.filter((mark) => mark.kind !== "right").length;
    Object.assign(row, { verdict: saved.judgment.verdict, wrong_marks: wrong });
    this.page.updated(row);
    this.page.forget(row);
    if (this.content?.row === row) this.page.open(row);
  }

  select(key, { center = false } = {}) {
    this.selected = key;
    const object = this.shown.find((one) => one.number === key);
    if (center && object && this.page.view.zoom > 1) this.page.view.goTo(object.box_xywh);
    this.render();
  }

  step(by) {
    const keys = this.shown.map((one) => one.number);
    if (!keys.length) return;
    const at = keys.indexOf(this.selected);
    this.select(keys[(at + by + (at < 0 && by < 0 ? 1 : 0) + keys.length) % keys.length], { center: true });
    const one = this.shown.find((object) => object.number === this.selected);
    say(this.describe(one));
  }

  describe(object) {
    if (object.isTruth) return object.class_name;
    const mark = this.markOf(object.number);
    const score = object.score === null ? "" : ` ${object.score.toFixed(2)}`;
    return `${object.number}: ${object.class_name}${score}${mark ? `, ${this.page.info.kinds[mark.kind]}` : ""}`;
  }

  // what the canvases show

  panes() {
    const { truth, row } = this.content;
    const { hidden, masks, truthMode } = this.page;
    const visible = masks ? this.shown.filter((one) => !hidden.has(one.class_name)) : [];
    const objects = visible.map((one) => {
      const mark = this.markOf(one.number);
      return { ...one, mark: mark ? (mark.kind === "right" ? "right" : "wrong") : null };
    });
    const counts = new Map();
    for (const one of this.shown) counts.set(one.class_name, (counts.get(one.class_name) ?? 0) + 1);
    const words = [...counts].map(([name, count]) => `${count} ${name}`).join(", ") || "no objects";
    const label = `${row.name}: ${words}`;
    const isBeside = truth && truthMode === "beside";
    const main = { title: isBeside ? "Prediction" : "", label, objects, isMain: true };
    if (truth && truthMode === "over") {
      main.objects = [...objects, ...truth.map((one) => ({ ...one, isQuiet: true }))];
    }
    if (!isBeside) return [main];
    return [main, { title: "Ground truth", label: `Ground truth of ${row.name}: ${counted(truth.length, "object")}`, objects: truth }];
  }

  render() {
    if (!this.content) return;
    const { judgment } = this.content;
    const { view } = this.page;
    view.missed = judgment.marks
      .filter((mark) => mark.kind === "missed")
      .map((mark) => ({ ...mark, key: this.keyOf(mark) }));
    view.highlighted = this.selected;
    view.show(this.panes());
    for (const verdict of ["right", "wrong"]) $(verdict).setAttribute("aria-pressed", String(judgment.verdict === verdict));
    $("score").value = this.content.score;
    $("score-value").textContent = this.content.score.toFixed(2);
    $("score-row").hidden = !this.content.objects.some((one) => one.score !== null);
    $("truth-label").hidden = !this.content.truth;
    this.renderObjects();
    this.renderEditor();
    this.renderJudgedBy();
    this.page.renderClasses(this.shown);
  }

  renderJudgedBy() {
    const { savedBy, savedAt } = this.content;
    const when = savedAt ? `, ${new Date(savedAt).toLocaleString()}` : "";
    $("judged-by").textContent = savedBy ? `Judged by ${savedBy}${when}` : "Not judged yet";
  }

  renderObjects() {
    const colors = this.page.modelInfo.colors;
    const { kinds } = this.page.info;
    const focused = document.activeElement?.dataset?.object;
    const item = (key, color, words, kind) => {
      const state = kind ? make("span", { class: `kind ${kind}`, text: kinds[kind] }) : null;
      return make("li", {},
        make("button", {
          type: "button",
          "data-object": String(key),
          "aria-pressed": String(this.selected === key),
          onclick: () => this.select(this.selected === key ? null : key, { center: true }),
          onmouseenter: () => this.highlight(key),
          onmouseleave: () => this.highlight(this.selected),
        }, make("i", { class: "swatch", style: { "--c": color } }), make("span", { class: "grow", text: words }), state));
    };
    const rows = this.shown.map((one) => {
      const score = one.score === null ? "" : ` ${one.score.toFixed(2)}`;
      return item(one.number, one.color, `${one.number}. ${one.class_name}${score}`, this.markOf(one.number)?.kind);
    });
    for (const mark of this.content.judgment.marks.filter((one) => one.kind === "missed")) {
      const name = mark.class_name ?? "an object";
      rows.push(item(this.keyOf(mark), colors[mark.class_name] ?? "#ffb020", name, "missed"));
    }
    if (!rows.length) rows.push(make("li", { class: "soft", text: "No objects with this score." }));
    $("objects").replaceChildren(...rows);
    if (focused !== undefined) $("objects").querySelector(`[data-object="${CSS.escape(focused)}"]`)?.focus();
  }

  highlight(key) {
    this.page.view.highlighted = key;
    this.page.view.draw();
  }

  renderEditor() {
    const host = $("editor");
    const key = this.selected;
    const isMissed = typeof key === "string";
    const object = this.shown.find((one) => one.number === key);
    const mark = isMissed
      ? this.content.judgment.marks.find((one) => one.kind === "missed" && this.keyOf(one) === key)
      : key === null ? null : this.markOf(key);
    host.hidden = !(isMissed ? mark : object);
    if (host.hidden) {
      host.replaceChildren();
      this.edited = null;
      return;
    }
    const focused = host.contains(document.activeElement) ? document.activeElement.dataset.field : null;
    const title = isMissed ? "A missed object" : this.describe(object);
    const close = make("button", { type: "button", "data-field": "close", "aria-label": "Close", text: "✕", onclick: () => this.select(null) });
    const parts = [make("div", { class: "head" }, make("h3", { text: title }), close)];
    if (!isMissed) parts.push(this.kindButtons(object, mark));
    if (isMissed || mark?.kind === "wrong_class") parts.push(this.classChoice(mark, object));
    if (mark) parts.push(this.markComment(mark));
    if (isMissed) {
      parts.push(make("button", { type: "button", "data-field": "remove", text: "Remove", onclick: () => this.remove(mark) }));
    }
    host.replaceChildren(...parts);
    if (focused) host.querySelector(`[data-field="${CSS.escape(focused)}"]`)?.focus();
  }

  kindButtons(object, mark) {
    const kinds = ["right", "false_alarm", "wrong_class", "bad_outline"];
    return make("div", { class: "kinds", role: "group", "aria-label": "What is it" }, ...kinds.map((kind, at) =>
      make("button", {
        type: "button",
        "data-field": kind,
        "aria-pressed": String(mark?.kind === kind),
        "aria-keyshortcuts": String(at + 1),
        onclick: () => this.mark(object.number, kind),
        text: this.page.info.kinds[kind],
      })));
  }

  // of an object of a wrong class, which it has not; of a missed one, any
  classChoice(mark, object) {
    const names = this.page.modelInfo.classes.filter((name) => name !== object?.class_name);
    const options = [make("option", { value: "", text: "not known" }), ...names.map((name) => make("option", { value: name, text: name }))];
    const choice = make("select", { "data-field": "class", onchange: () => {
      if (choice.value) mark.class_name = choice.value;
      else delete mark.class_name;
      this.save(this.content);
      this.render();
    } }, ...options);
    choice.value = mark.class_name ?? "";
    return make("label", { class: "field" }, object ? "It is a " : "Its class ", choice);
  }

  markComment(mark) {
    const input = make("input", { type: "text", maxlength: "2000", "data-field": "comment", placeholder: "Optional", oninput: () => {
      mark.comment = input.value;
      this.saveSoon();
    } });
    input.value = mark.comment ?? "";
    return make("label", { class: "field" }, "Comment ", input);
  }

  remove(mark) {
    const { judgment } = this.content;
    judgment.marks = judgment.marks.filter((one) => one !== mark);
    this.selected = null;
    this.save(this.content);
    this.render();
    $("add-missed").focus();
  }

  pick(object, pane) {
    if (!this.content) return;
    if (!pane.content.isMain && object) return;
    this.select(object?.number ?? null);
  }

  get keys() {
    return [
      ["A", "right, and on to the next image", () => this.judge("right")],
      ["W", "wrong", () => this.judge("wrong")],
      ["N", "next object", () => this.step(1)],
      ["P", "previous object", () => this.step(-1)],
      ["1", "selected object: right", () => this.markSelected("right")],
      ["2", "selected object: false alarm", () => this.markSelected("false_alarm")],
      ["3", "selected object: wrong class", () => this.markSelected("wrong_class")],
      ["4", "selected object: bad outline", () => this.markSelected("bad_outline")],
      ["M", "add a missed object", () => this.content && this.place(!this.page.view.isPlacing)],
    ];
  }

  markSelected(kind) {
    if (this.content && typeof this.selected === "number") this.mark(this.selected, kind);
    else say("No object is selected");
  }

  // the results

  async results(host) {
    const model = `model=${this.page.model}`;
    await this.saver.flush();
    const result = await getJson(`summary?${model}`);
    const { right_images: images, right_objects: objects, kinds } = result;
    const tile = (value, words, more) => make("div", { class: "tile" },
      make("b", { text: value }), make("span", { text: words }), make("span", { text: more }));
    const tiles = make("div", { class: "tiles" },
      tile(percent(images.value), "of judged images right", images.total ? `${interval(images)}, ${images.count} of ${images.total}` : "none judged"),
      tile(percent(objects.value), "of objects right", objects.total ? `${interval(objects)}, ${objects.count} of ${objects.total}` : "none judged"),
      tile(String(kinds.missed ?? 0), kinds.missed === 1 ? "object missed" : "objects missed", `${result.judged} of ${counted(result.images, "image")} judged`));
    const exports = make("div", { class: "buttons start" },
      make("button", { type: "button", id: "get-report", class: "strong", text: "Report (HTML, to print)", onclick: () => download(`report.html?${model}`, "acceptance_report.html") }),
      make("button", { type: "button", text: "Table (CSV)", onclick: () => download(`judgments.csv?${model}`, "judgments.csv") }),
      make("button", { type: "button", text: "Labelme files (ZIP)", onclick: () => download(`judgments_labelme.zip?${model}`, "judgments_labelme.zip") }));
    const note = make("p", { class: "soft", text: "Ranges are 95 % intervals: where the share lies on further images like these." });
    host.replaceChildren(tiles, note, exports, this.signOff(result, model));
  }

  signOff(result, model) {
    const signed = result.sign_off;
    const current = signed === null
      ? "Nobody has signed off yet."
      : `${DECISIONS.find(([key]) => key === signed.sign_off.decision)[1]} by ${signed.sign_off.signed_by}` +
        (signed.is_current ? "." : ", but judgments were changed since.");
    const before = signed?.sign_off ?? { decision: "accepted", signed_by: this.page.personName, role: "", comment: "" };
    const decision = make("select", { id: "decision" }, ...DECISIONS.map(([value, text]) => make("option", { value, text })));
    decision.value = before.decision;
    const name = make("input", { type: "text", id: "signed-by", maxlength: "100", value: before.signed_by });
    const role = make("input", { type: "text", id: "role", maxlength: "100", placeholder: "Optional", value: before.role });
    const comment = make("textarea", { id: "sign-comment", rows: "2", maxlength: "2000", placeholder: "Conditions or reasons" });
    comment.value = before.comment;
    const button = make("button", { type: "button", id: "sign-off", class: "strong", text: "Sign off", disabled: !result.judged });
    button.addEventListener("click", async () => {
      const json = { decision: decision.value, signed_by: name.value, role: role.value, comment: comment.value };
      if (!json.signed_by.trim()) return name.focus();
      try {
        await request(`sign-off?${model}`, { method: "POST", json });
        await this.results($("results"));
        $("sign-off").focus();
        say("Signed off");
      } catch (error) {
        say(error.message);
      }
    });
    const field = (text, input) => make("label", { class: "field" }, text, input);
    // Enter in a field would send the form of the dialog, which closes it
    const keep = (event) => event.key === "Enter" && event.target.matches("input") && event.preventDefault();
    return make("section", { class: "sign-off", "aria-labelledby": "sign-heading", onkeydown: keep },
      make("h3", { id: "sign-heading", text: "Sign-off" }), make("p", { class: "soft", text: current }),
      make("div", { class: "fields" }, field("Decision ", decision), field("Name ", name), field("Role ", role)),
      field("Comment ", comment), make("div", { class: "buttons start" }, button));
  }
}
