// What a click or a stroke does. Points are whole pixels {x, y}; a tool answers with spans to paint.

import { flood, polygon, stroke } from "./shapes.js";

/** Name, key, what it is called, what to do with it. */
export const TOOLS = [
  { name: "superpixel", key: "s", label: "Patch", hint: "Click or drag over patches of one colour. [ and ] change their size." },
  { name: "region", key: "r", label: "Region", hint: "Click a region of the model's prediction to relabel all of it." },
  { name: "fill", key: "f", label: "Fill", hint: "Click to relabel everything connected that has this class now." },
  { name: "brush", key: "b", label: "Brush", hint: "Drag to paint. [ and ] change the size." },
  { name: "polygon", key: "p", label: "Polygon", hint: "Click the corners; Enter or a click on the first one closes, Backspace takes one back." },
  { name: "eraser", key: "e", label: "Erase", hint: "Drag to get the prediction back. [ and ] change the size." },
  { name: "move", key: "m", label: "Move", hint: "Drag to move the frame. The wheel zooms; the right button moves with every tool." },
];

export class Toolbox {
  constructor(mask) {
    this.mask = mask;
    this.tool = "superpixel";
    this.value = 0;
    this.only = false;
    this.radius = 8;
    this.patches = null;
    this.corners = [];
    this.last = null;
    this.onlyClass = -1;
  }

  index(point) { return point.y * this.mask.width + point.x; }

  /** Spans that a click here would paint, for the outline under the pointer; null where there is nothing to show. */
  preview(point) {
    if (this.tool === "superpixel" && this.patches) return this.patches.spans(this.patches.at(this.index(point)));
    if (this.tool === "region") return this.#region(point);
    return null;
  }

  start(point) {
    this.mask.begin();
    this.last = point;
    this.onlyClass = this.only ? this.mask.classAt(this.index(point)) : -1;
    const { mask } = this;
    if (this.tool === "superpixel") this.#patch(point);
    else if (this.tool === "region") this.#paint(this.#region(point));
    else if (this.tool === "fill") {
      const cls = mask.classAt(this.index(point));
      this.#paint(flood(this.index(point), (i) => (mask.values[i] & 255) === cls, mask.width, mask.height));
    } else if (this.tool === "brush" || this.tool === "eraser") this.#stroke(point, point);
  }

  move(point) {
    if (this.tool === "superpixel") this.#patches(this.last, point);
    else if (this.tool === "brush" || this.tool === "eraser") this.#stroke(this.last, point);
    this.last = point;
  }

  end() {
    this.mask.end();
    this.last = null;
  }

  cancel() {
    const begun = this.mask.step && this.mask.step.length;
    this.end();
    if (begun) this.mask.undo();
  }

  addCorner(corner) { this.corners.push(corner); }

  closePolygon() {
    if (this.corners.length > 2) {
      this.onlyClass = -1;
      this.#paint(polygon(this.corners, this.mask.width, this.mask.height));
    }
    this.corners = [];
  }

  #region(point) {
    const { values, base, width, height } = this.mask;
    const at = this.index(point), predicted = base[at], now = values[at] & 255;
    return flood(at, (i) => base[i] === predicted && (values[i] & 255) === now, width, height);
  }

  #patch(point) {
    if (this.patches) this.#paint(this.patches.spans(this.patches.at(this.index(point))));
  }

  /** Every patch on the way: a fast hand leaves none out. */
  #patches(from, to) {
    const dx = to.x - from.x, dy = to.y - from.y, steps = Math.max(Math.abs(dx), Math.abs(dy));
    let before = this.patches ? this.patches.at(this.index(from)) : -1;
    for (let k = 1; k <= steps && this.patches; k++) {
      const point = { x: Math.round(from.x + (dx * k) / steps), y: Math.round(from.y + (dy * k) / steps) };
      const number = this.patches.at(this.index(point));
      if (number !== before) this.#patch(point);
      before = number;
    }
  }

  #stroke(from, to) {
    this.#paint(stroke(from, to, this.radius, this.mask.width, this.mask.height));
  }

  #paint(spans) {
    this.mask.paint(spans, this.tool === "eraser" ? -1 : this.value, this.onlyClass);
  }
}
