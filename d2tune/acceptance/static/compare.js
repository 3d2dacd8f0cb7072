// Two models blind beside each other: which is better is asked, which is which is not shown.

import { $, interval, make, percent, say } from "./dom.js";
import { Saver, download, getJson, request } from "./server.js";
import { prepared } from "./view.js";

const CHOICES = [
  ["left", "A is better"],
  ["same", "No difference"],
  ["right", "B is better"],
];

export class Compare {
  constructor(page) {
    this.page = page;
    this.saver = new Saver(page.info.session, {
      bodyOf: (pair) => pair,
      onSaved: () => say(`Saved. ${page.progressWords()}`),
      onConflict: () => {},
      onRefused: () => this.closeIfEnded(),
    });
    this.isClosed = false;
    $("verdict").append(...CHOICES.map(([value, text]) =>
      make("button", { type: "button", id: `prefer-${value}`, "aria-pressed": "false", text, onclick: () => this.prefer(value) })));
    for (const id of ["score-row", "add-missed"]) $(id).hidden = true;
    $("objects").closest("section").hidden = true;
    $("comment").addEventListener("change", () => this.content?.preference && this.save());
    setTimeout(() => this.saver.flush());
    this.closeIfEnded().catch(() => {});
  }

  // where the result was shown, here or in another browser, nothing is taken any more, and the list is what was taken
  async closeIfEnded() {
    if (this.isClosed || (await getJson("comparison")).result === null) return;
    this.isClosed = true;
    if (this.page.row) {
      this.page.list.fill(await getJson("images"));
      this.page.progress();
      const row = this.page.list.rows.find((one) => one.id === this.page.row.id);
      this.page.forget(row);
      await this.page.open(row);
    }
  }

  fetchContent(row) {
    return getJson(`images/${row.id}/pair`);
  }

  address(row) {
    return `images/${row.id}/preference`;
  }

  leave() {
    this.content = null;
    $("comment").value = "";
  }

  open(row, given) {
    const colors = this.page.modelInfo.colors;
    const latest = this.saver.unsaved(this.address(row)) ?? given.saved;
    this.content = {
      row,
      left: given.left.map((one) => prepared(one, colors)),
      right: given.right.map((one) => prepared(one, colors, "right")),
      truth: given.truth?.map((one) => prepared(one, colors, "truth")) ?? null,
      preference: latest?.preference ?? null,
      savedBy: latest?.judged_by ?? null,
    };
    $("comment").value = latest?.comment ?? "";
    this.render();
  }

  async prefer(value) {
    if (this.isClosed) return say("The comparison is closed: its result was shown");
    if (!this.content || !(await this.page.person())) return;
    this.content.preference = value;
    this.save();
    this.render();
    this.page.goOn();
  }

  save() {
    const { row, preference } = this.content;
    const pair = { preference, comment: $("comment").value, judged_by: this.page.personName };
    this.content.savedBy = pair.judged_by;
    row.verdict = preference;
    this.page.updated(row);
    this.page.forget(row);
    this.saver.put(this.address(row), pair, null);
  }

  panes() {
    const { hidden, masks, truthMode } = this.page;
    const { left, right, truth, row } = this.content;
    const visible = (objects) => (masks ? objects.filter((one) => !hidden.has(one.class_name)) : []);
    const over = truth && truthMode === "over" ? truth.map((one) => ({ ...one, isQuiet: true })) : [];
    const panes = [["A", left], ["B", right]].map(([title, objects]) => ({
      title,
      label: `${title} of ${row.name}: ${objects.length} objects`,
      objects: [...visible(objects), ...over],
    }));
    if (truth && truthMode === "beside") panes.push({ title: "Ground truth", label: "Ground truth", objects: truth });
    return panes;
  }

  render() {
    if (!this.content) return;
    this.page.view.show(this.panes());
    for (const [value] of CHOICES) $(`prefer-${value}`).setAttribute("aria-pressed", String(this.content.preference === value));
    $("truth-label").hidden = !this.content.truth;
    const closed = this.isClosed ? " The comparison is closed: its result was shown." : "";
    $("judged-by").textContent = `${this.content.savedBy ? `Judged by ${this.content.savedBy}.` : "Not compared."}${closed}`;
    this.page.renderClasses([...this.content.left, ...this.content.right]);
  }

  highlight(key) {
    this.page.view.highlighted = key;
    this.page.view.draw();
  }

  describe(object) {
    return object.class_name;
  }

  pick() {}
  addMissed() {}

  get keys() {
    return [
      ["1", "A is better", () => this.prefer("left")],
      ["2", "no difference", () => this.prefer("same")],
      ["3", "B is better", () => this.prefer("right")],
    ];
  }

  get selected() {
    return null;
  }

  async results(host) {
    await this.saver.flush();
    const { images, compared, result } = await getJson("comparison");
    if (result === null) {
      const button = make("button", { type: "button", id: "reveal", class: "strong", text: "End the comparison and show the result", disabled: !compared });
      button.addEventListener("click", async () => {
        try {
          await request("reveal", { method: "POST", json: {} });
          await this.results(host);
        } catch (error) {
          say(error.message);
        }
      });
      host.replaceChildren(
        make("p", { text: `${compared} of ${images} images are compared.` }),
        make("p", { class: "soft", text: "Which model is which is shown at the end. After that no preference is taken any more, so that nobody compares until the result pleases." }),
        make("div", { class: "buttons start" }, button));
      return;
    }
    await this.closeIfEnded();
    const [first, second] = result.models;
    const better = first.preferred > second.preferred ? first : second;
    const chance = result.p_value < 0.001 ? "less than 0.1 %" : `${(100 * result.p_value).toFixed(result.p_value < 0.1 ? 1 : 0)} %`;
    const words = result.is_real
      ? `${better.name} is preferred: chance alone would give a result at least as clear in ${chance} of comparisons.`
      : `No real preference: chance alone gives a result at least as clear in ${chance} of comparisons. That does not show that the models are equal.`;
    const tile = (value, text, more = "") => make("div", { class: "tile" }, make("b", { text: value }), make("span", { text }), make("span", { text: more }));
    host.replaceChildren(
      make("p", { id: "comparison-words", class: "lead", text: words }),
      make("div", { class: "tiles" },
        tile(String(first.preferred), `images: ${first.name} is better`, `${percent(result.share.value)} of preferences, ${interval(result.share)}`),
        tile(String(second.preferred), `images: ${second.name} is better`),
        tile(String(result.ties), "images without a difference")),
      make("p", { class: "soft", text: "Exact sign test; images without a difference do not count." }),
      make("div", { class: "buttons start" },
        make("button", { type: "button", id: "get-report", class: "strong", text: "Report (HTML, to print)", onclick: () => download("report.html", "comparison_report.html") }),
        make("button", { type: "button", text: "Table (CSV)", onclick: () => download("preferences.csv", "preferences.csv") })));
  }
}
