// Canvases beside each other that show one image and the outlines on it, zoomed and moved together.

import { make } from "./dom.js";

const LARGEST = 40;
const CLICK_PX = 5;
const GOOD = "#2ecc71";
const MISSED = "#ffb020";

export class View {
  // host: the element that holds the canvases. on: {pick(object, pane), hover(object, pane, event), place(x, y)}.
  constructor(host, on) {
    this.host = host;
    this.on = on;
    this.panes = [];
    this.image = null;
    this.width = 1;
    this.height = 1;
    this.zoom = 1;
    this.center = [0.5, 0.5];
    this.pointers = new Map();
    this.isPlacing = false;
    this.missed = [];
    this.highlighted = null;
    new ResizeObserver(() => this.resize()).observe(host);
  }

  // panes: [{title, label, objects: [{number, path, color, mark, dashed}], isMain}]
  show(panes) {
    while (this.panes.length > panes.length) this.panes.pop().element.remove();
    while (this.panes.length < panes.length) this.panes.push(this.makePane());
    panes.forEach((content, at) => {
      const pane = this.panes[at];
      pane.content = content;
      pane.title.textContent = content.title;
      pane.title.hidden = !content.title;
      pane.canvas.setAttribute("aria-label", content.label);
    });
    this.resize();
  }

  // beside each other or one below the other: where the image is larger
  arrange() {
    const box = this.host.getBoundingClientRect();
    const count = Math.max(1, this.panes.length);
    const beside = Math.min(box.width / count / this.width, box.height / this.height);
    const below = Math.min(box.width / this.width, box.height / count / this.height);
    this.host.style.setProperty("--columns", String(beside >= below ? count : 1));
  }

  makePane() {
    const canvas = make("canvas", { tabindex: "0", role: "img" });
    const title = make("p", { class: "pane-title" });
    const element = make("div", { class: "pane" }, canvas, title);
    this.host.append(element);
    const pane = { canvas, title, element, content: { objects: [] } };
    canvas.addEventListener("pointerdown", (event) => this.down(event, pane));
    canvas.addEventListener("pointermove", (event) => this.move(event, pane));
    canvas.addEventListener("pointerup", (event) => this.up(event, pane));
    canvas.addEventListener("pointercancel", (event) => this.pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", (event) => this.on.hover(null, pane, event));
    canvas.addEventListener("dblclick", () => this.fit());
    canvas.addEventListener("wheel", (event) => this.wheel(event, pane), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    return pane;
  }

  setImage(image, width, height) {
    this.image = image;
    this.width = width;
    this.height = height;
    this.zoom = 1;
    this.center = [width / 2, height / 2];
    this.resize();
  }

  fit() {
    this.zoom = 1;
    this.center = [this.width / 2, this.height / 2];
    this.draw();
  }

  resize() {
    this.arrange();
    const ratio = window.devicePixelRatio || 1;
    for (const { canvas, element } of this.panes) {
      const box = element.getBoundingClientRect();
      canvas.width = Math.max(1, Math.round(box.width * ratio));
      canvas.height = Math.max(1, Math.round(box.height * ratio));
    }
    this.draw();
  }

  // pixels of the screen for one of the image, and where the image begins
  place(pane) {
    const box = pane.element.getBoundingClientRect();
    const whole = Math.min(box.width / this.width, box.height / this.height) * 0.98;
    const scale = whole * this.zoom;
    return { scale, left: box.width / 2 - this.center[0] * scale, top: box.height / 2 - this.center[1] * scale, box };
  }

  toImage(event, pane) {
    const { scale, left, top, box } = this.place(pane);
    return [(event.clientX - box.left - left) / scale, (event.clientY - box.top - top) / scale];
  }

  toScreen(x, y, pane = this.panes[0]) {
    const { scale, left, top, box } = this.place(pane);
    return [box.left + left + x * scale, box.top + top + y * scale];
  }

  zoomBy(factor, at = null) {
    const zoom = Math.min(LARGEST, Math.max(1, this.zoom * factor));
    const fixed = at ?? this.center;
    const share = this.zoom / zoom;
    this.center = this.center.map((value, axis) => fixed[axis] + (value - fixed[axis]) * share);
    this.zoom = zoom;
    this.keepInside();
    this.draw();
  }

  panBy(across, down) {
    const { scale } = this.place(this.panes[0]);
    this.center = [this.center[0] - across / scale, this.center[1] - down / scale];
    this.keepInside();
    this.draw();
  }

  goTo(box) {
    const [x, y, width, height] = box;
    this.center = [x + width / 2, y + height / 2];
    this.keepInside();
    this.draw();
  }

  keepInside() {
    if (this.zoom === 1) this.center = [this.width / 2, this.height / 2];
    const limits = [this.width, this.height];
    this.center = this.center.map((value, axis) => Math.min(limits[axis], Math.max(0, value)));
  }

  wheel(event, pane) {
    event.preventDefault();
    this.on.hover(null, pane, event);
    this.zoomBy(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), this.toImage(event, pane));
  }

  key(event) {
    const step = 60;
    const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
    if (event.key in moves && (this.zoom > 1 || this.isPlacing)) {
      event.preventDefault();
      event.stopPropagation();
      if (this.isPlacing && this.zoom === 1) this.zoomBy(2);
      this.panBy(...moves[event.key]);
    } else if (event.key === "Enter" && this.isPlacing) {
      event.preventDefault();
      event.stopPropagation();
      this.on.place(...this.center);
    }
  }

  down(event, pane) {
    pane.canvas.setPointerCapture(event.pointerId);
    const at = [event.clientX, event.clientY];
    this.pointers.set(event.pointerId, { start: at, last: at, moved: false });
  }

  move(event, pane) {
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) {
      if (event.pointerType !== "touch") this.on.hover(this.objectAt(...this.toImage(event, pane), pane), pane, event);
      return;
    }
    const now = [event.clientX, event.clientY];
    const others = [...this.pointers.entries()].filter(([id]) => id !== event.pointerId);
    if (others.length === 1) {
      const other = others[0][1];
      other.moved = true;
      const before = Math.hypot(pointer.last[0] - other.last[0], pointer.last[1] - other.last[1]);
      const after = Math.hypot(now[0] - other.last[0], now[1] - other.last[1]);
      const middle = { clientX: (now[0] + other.last[0]) / 2, clientY: (now[1] + other.last[1]) / 2 };
      if (before > 0) this.zoomBy(after / before, this.toImage(middle, pane));
      pointer.moved = true;
    } else {
      const far = Math.hypot(now[0] - pointer.start[0], now[1] - pointer.start[1]) > CLICK_PX;
      pointer.moved ||= far;
      if (pointer.moved) this.panBy(now[0] - pointer.last[0], now[1] - pointer.last[1]);
    }
    pointer.last = now;
  }

  up(event, pane) {
    const pointer = this.pointers.get(event.pointerId);
    this.pointers.delete(event.pointerId);
    if (!pointer || pointer.moved || !this.image) return;
    const [x, y] = this.toImage(event, pane);
    const isOn = x >= 0 && y >= 0 && x <= this.width && y <= this.height;
    if (this.isPlacing) {
      if (isOn) this.on.place(x, y);
    } else {
      this.on.pick(this.objectAt(x, y, pane), pane);
    }
  }

  // the smallest object under a point
  objectAt(x, y, pane) {
    const context = pane.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    let best = null;
    for (const object of pane.content.objects) {
      if (object.isQuiet || !context.isPointInPath(object.path, x, y, "evenodd")) continue;
      if (best === null || object.area_px2 < best.area_px2) best = object;
    }
    return best;
  }

  draw() {
    for (const pane of this.panes) this.drawPane(pane);
  }

  drawPane(pane) {
    const context = pane.canvas.getContext("2d");
    const ratio = window.devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, pane.canvas.width, pane.canvas.height);
    if (!this.image) return;
    const { scale, left, top } = this.place(pane);
    const unit = 1 / scale;
    context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * left, ratio * top);
    context.imageSmoothingEnabled = scale < 4;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.image, 0, 0, this.width, this.height);
    const { objects } = pane.content;
    const strong = objects.find((one) => one.number === this.highlighted && !one.isQuiet) ?? null;
    for (const object of objects) if (object !== strong) this.drawObject(context, object, unit, strong ? 0.08 : 0.24);
    if (strong) this.drawStrong(context, strong, unit);
    for (const object of pane.content.objects) if (object.mark) this.drawBadge(context, object, unit);
    if (pane.content.isMain) for (const mark of this.missed) this.drawMissed(context, mark, unit);
    if (this.isPlacing) this.drawCross(context, unit);
  }

  drawObject(context, object, unit, alpha) {
    context.setLineDash(object.isQuiet ? [7 * unit, 5 * unit] : []);
    this.fillAndStroke(context, object, object.isQuiet ? 0 : alpha, [
      ["rgb(0 0 0 / 0.55)", 3.6 * unit],
      [object.isQuiet ? "#ffffff" : object.color, 1.8 * unit],
    ]);
    context.setLineDash([]);
  }

  // over all others, which are pale meanwhile: neighbors of one class have nearly one color
  drawStrong(context, object, unit) {
    this.fillAndStroke(context, object, 0.5, [["#000000", 6.4 * unit], ["#ffffff", 4.6 * unit], [object.color, 1.8 * unit]]);
  }

  fillAndStroke(context, object, alpha, lines) {
    context.globalAlpha = alpha;
    context.fillStyle = object.color;
    context.fill(object.path, "evenodd");
    context.globalAlpha = 1;
    context.lineJoin = "round";
    for (const [color, width] of lines) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.stroke(object.path);
    }
  }

  drawBadge(context, object, unit) {
    const [x, y, width] = object.box_xywh;
    const radius = 10 * unit;
    const at = [x + width / 2, Math.max(radius, y)];
    this.disc(context, at, radius, object.mark === "wrong" ? "#b3202c" : "#1b6d3d", unit);
    context.lineWidth = 2.4 * unit;
    context.lineCap = "round";
    context.strokeStyle = "#ffffff";
    context.beginPath();
    const r = radius * 0.42;
    if (object.mark === "wrong") {
      context.moveTo(at[0] - r, at[1] - r);
      context.lineTo(at[0] + r, at[1] + r);
      context.moveTo(at[0] + r, at[1] - r);
      context.lineTo(at[0] - r, at[1] + r);
    } else {
      context.moveTo(at[0] - r, at[1]);
      context.lineTo(at[0] - r * 0.2, at[1] + r * 0.8);
      context.lineTo(at[0] + r, at[1] - r * 0.7);
    }
    context.stroke();
  }

  disc(context, [x, y], radius, color, unit) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fillStyle = color;
    context.fill();
    context.lineWidth = 1.6 * unit;
    context.strokeStyle = "#ffffff";
    context.stroke();
  }

  drawMissed(context, mark, unit) {
    const isStrong = this.highlighted === mark.key;
    const radius = (isStrong ? 17 : 13) * unit;
    for (const [color, width] of [["rgb(0 0 0 / 0.6)", 6], [MISSED, 3]]) {
      context.lineWidth = width * unit;
      context.strokeStyle = color;
      context.beginPath();
      context.arc(mark.x, mark.y, radius, 0, 2 * Math.PI);
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(mark.x + dx * radius * 0.55, mark.y + dy * radius * 0.55);
        context.lineTo(mark.x + dx * radius * 1.45, mark.y + dy * radius * 1.45);
      }
      context.stroke();
    }
  }

  drawCross(context, unit) {
    const [x, y] = this.center;
    for (const [color, width] of [["rgb(0 0 0 / 0.6)", 4], [GOOD, 1.6]]) {
      context.lineWidth = width * unit;
      context.strokeStyle = color;
      context.beginPath();
      context.moveTo(x - 14 * unit, y);
      context.lineTo(x + 14 * unit, y);
      context.moveTo(x, y - 14 * unit);
      context.lineTo(x, y + 14 * unit);
      context.stroke();
    }
  }
}

// the color of a class, lighter or darker, so that neighbors of one class can be distinguished
export function shade(color, number) {
  const [target, share] = [[0, 0], [255, 0.45], [0, 0.2], [255, 0.7]][(number - 1) % 4];
  const mixed = [1, 3, 5].map((at) => {
    const value = Number.parseInt(color.slice(at, at + 2), 16);
    return Math.round(value + (target - value) * share).toString(16).padStart(2, "0");
  });
  return `#${mixed.join("")}`;
}

// an object as the server gives it, ready to be drawn
export function prepared(object, colors, prefix = "") {
  const color = shade(colors[object.class_name] ?? "#cccccc", object.number);
  const number = prefix ? `${prefix} ${object.number}` : object.number;
  return { ...object, number, isTruth: prefix === "truth", path: pathOf(object.rings), color };
}

function pathOf(rings) {
  const path = new Path2D();
  for (const ring of rings) {
    path.moveTo(ring[0], ring[1]);
    for (let at = 2; at < ring.length; at += 2) path.lineTo(ring[at], ring[at + 1]);
    path.closePath();
  }
  return path;
}
