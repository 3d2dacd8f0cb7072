// The page that compares two models on one image.

import { $, make, remember, remembered, say } from "./dom.js";
import { download, getBlob, getJson, request } from "./server.js";

const LAYERS = ["a", "b", "agreement"];
const KNOWN = { both: "both", a: "A alone", b: "B alone" };

const share = (value) => (value === null ? "none" : `${(100 * value).toFixed(1)} %`);

class Models {
  constructor(state) {
    this.state = state;
    this.key = null;
    this.addresses = [];
    $("title").textContent = state.title;
    for (const [at, id] of ["a", "b"].entries()) {
      $(id).append(...state.two_models.map((name) => make("option", { value: name, text: name })));
      const wanted = remembered(`two.${id}.${state.session}`, null);
      $(id).value = state.two_models.includes(wanted) ? wanted : state.two_models[at];
      $(id).addEventListener("change", () => remember(`two.${id}.${state.session}`, $(id).value));
    }
    $("choice").addEventListener("submit", (event) => {
      event.preventDefault();
      this.compare();
    });
    $("swap").addEventListener("click", () => this.swap());
    $("files").addEventListener("change", () => this.add([...$("files").files]));
    $("opacity").addEventListener("input", () => this.setOpacity());
    $("download").addEventListener("click", () => this.save());
    this.setOpacity();
  }

  async start() {
    const rows = await getJson("images");
    $("image").append(...rows.map((row) => this.option(row)));
    this.ready();
  }

  option(row) {
    return make("option", { value: String(row.id), text: row.name.replace(/^added\//, "") });
  }

  ready() {
    $("compare").disabled = !$("image").options.length;
    if ($("compare").disabled) $("hint").textContent = "There are no images yet. Add one, and compare two models on it.";
  }

  swap() {
    [$("a").value, $("b").value] = [$("b").value, $("a").value];
    for (const id of ["a", "b"]) $(id).dispatchEvent(new Event("change"));
    if (this.key) this.compare();
  }

  async add([file]) {
    $("files").value = "";
    if (!file) return;
    $("banner").hidden = true;
    try {
      if (file.size > this.state.max_upload_bytes) {
        throw new Error(`${file.name} is larger than ${Math.round(this.state.max_upload_bytes / 1e6)} MB`);
      }
      const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
      const answer = await request(`images?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file, type });
      const row = await answer.json();
      if (![...$("image").options].some((one) => one.value === String(row.id))) $("image").append(this.option(row));
      $("image").value = String(row.id);
      this.ready();
      say("Image added");
    } catch (error) {
      this.complain(error);
    }
  }

  complain(error) {
    $("banner").textContent = `${error.message}.`;
    $("banner").hidden = false;
  }

  async compare() {
    $("banner").hidden = true;
    $("compare").disabled = true;
    $("compare").textContent = "Predicting";
    $("result").setAttribute("aria-busy", "true");
    try {
      const json = { a: $("a").value, b: $("b").value, image: Number($("image").value) };
      const result = await (await request("two-models", { method: "POST", json })).json();
      const blobs = await Promise.all([
        getBlob(`images/${json.image}/pixels`),
        ...LAYERS.map((name) => getBlob(`two-models/${result.key}/${name}.png`)),
      ]);
      this.key = result.key;
      this.images(blobs);
      this.show(result);
      $("hint").hidden = true;
      $("result").hidden = false;
    } catch (error) {
      $("result").hidden = true;
      this.complain(error);
    } finally {
      $("compare").disabled = false;
      $("compare").textContent = "Compare";
      $("result").setAttribute("aria-busy", "false");
    }
  }

  images([image, ...layers]) {
    this.addresses.forEach((address) => URL.revokeObjectURL(address));
    this.addresses = [image, ...layers].map((blob) => URL.createObjectURL(blob));
    for (const [at, name] of LAYERS.entries()) {
      $(`image-${name}`).src = this.addresses[0];
      $(`layer-${name}`).src = this.addresses[at + 1];
    }
  }

  show(result) {
    const tile = (value, text) => make("div", { class: "tile" }, make("b", { text: value }), make("span", { text }));
    $("tiles").replaceChildren(
      tile(share(result.agreement), "of pixels have the same class"),
      tile(share(result.mean_iou), "mean IoU of the classes that both models know"),
      tile(`${result.width_px} x ${result.height_px}`, "pixels of the image"),
    );
    $("name-a").textContent = `A: ${result.models[0].name}`;
    $("name-b").textContent = `B: ${result.models[1].name}`;
    const number = (text) => make("td", { class: "n", text });
    $("classes").replaceChildren(...result.classes.map((row) => make("tr", {},
      make("td", {}, make("i", { class: "swatch", style: { "--c": result.colors[row.name] } }), row.name),
      number(share(row.iou)), ...[row.a_px, row.b_px, row.both_px].map((count) => number(count.toLocaleString("en"))),
      make("td", { text: KNOWN[row.known_by] }))));
    $("models").replaceChildren(...result.rows.map((row) => make("tr", {}, make("td", { text: row[""] }),
      make("td", { text: row.model }), number(row.time), number(row["in the network"]), number(row.weights),
      number(row["memory of a prediction"]), make("td", { class: "words", text: row.published }))));
  }

  setOpacity() {
    $("result").style.setProperty("--opacity", $("opacity").value);
    $("opacity-value").textContent = `${Math.round(100 * $("opacity").value)} %`;
  }

  async save() {
    try {
      await download(`two-models/${this.key}/comparison.zip?opacity=${$("opacity").value}`, "comparison.zip");
    } catch (error) {
      this.complain(error);
    }
  }
}

try {
  const state = await getJson("state");
  if (!state.two_models.length) throw new Error("the server has no two models to compare here");
  await new Models(state).start();
  document.body.dataset.ready = "true";
} catch (error) {
  $("banner").textContent = `The page cannot be used: ${error.message}.`;
  $("banner").hidden = false;
}
