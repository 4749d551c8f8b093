// The label as colours over the frame. Repaints only the rectangle that changed.

import { UNSURE } from "./mask.js";

const littleEndian = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;
const pack = (r, g, b, a = 255) =>
  littleEndian ? ((a << 24) | (b << 16) | (g << 8) | r) >>> 0 : ((r << 24) | (g << 16) | (b << 8) | a) >>> 0;

const shade = (value, by) => Math.round(by < 0 ? value * (1 + by) : value + (255 - value) * by);
const luminance = ([r, g, b]) => 0.3 * r + 0.59 * g + 0.11 * b;

/** Two colours per class: plain, and the one its pattern alternates with. */
function lookup(classes, original) {
  const table = new Uint32Array(512);
  classes.forEach((entry, index) => {
    const color = original ? entry.original : entry.color;
    const other = color.map((value) => shade(value, luminance(color) > 110 ? -0.55 : 0.55));
    table[2 * index] = pack(...color);
    table[2 * index + 1] = original || entry.pattern === "solid" ? pack(...color) : pack(...other);
  });
  return table;
}

export class Picture {
  constructor(canvas, mask, classes) {
    this.mask = mask;
    this.classes = classes;
    canvas.width = mask.width;
    canvas.height = mask.height;
    this.context = canvas.getContext("2d");
    this.image = this.context.createImageData(mask.width, mask.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.stripes = classes.map((entry) => entry.pattern === "stripes");
    this.options = { difference: false, hints: false, original: false, rule: { kind: "all", share: 0 } };
    this.confidence = null;
    this.table = lookup(classes, false);
  }

  set(options) {
    Object.assign(this.options, options);
    this.table = lookup(this.classes, this.options.original);
    this.paint([0, 0, this.mask.width, this.mask.height]);
  }

  paint([left, top, right, bottom]) {
    const { width, height } = this.mask;
    // Borders between classes are drawn on the pixel left of and above them.
    const x0 = Math.max(0, left - 1), y0 = Math.max(0, top - 1);
    const x1 = Math.min(width, right), y1 = Math.min(height, bottom);
    for (let y = y0; y < y1; y++) this.#row(y, x0, x1);
    this.context.putImageData(this.image, 0, 0, x0, y0, x1 - x0, y1 - y0);
  }

  #row(y, x0, x1) {
    const { values, base, width, height } = this.mask;
    const { difference, hints, rule } = this.options;
    const least = rule.kind === "all" ? 0 : rule.kind === "none" ? Infinity : rule.share * 255;
    const { confidence, pixels, table, stripes } = this;
    const unlabelled = pack(0, 0, 0, 0), hatch = pack(255, 255, 255, 120), dark = pack(10, 12, 16), hint = pack(255, 40, 200);
    for (let x = x0; x < x1; x++) {
      const i = y * width + x, value = values[i], cls = value & 255, touched = value > 255;
      const left = !touched && (confidence ? confidence[i] : 255) < least;
      let color;
      if (difference && cls === base[i]) color = unlabelled;
      else if (cls === UNSURE || left) color = (touched || left) && ((x + y) & 7) < 2 ? hatch : unlabelled;
      else {
        const pattern = stripes[cls] ? ((x + y) >> 2) & 1 : ((x >> 2) & 1) & ((y >> 2) & 1);
        color = table[2 * cls + pattern];
        const edge = (x + 1 < width && (values[i + 1] & 255) !== cls) || (y + 1 < height && (values[i + width] & 255) !== cls);
        if (edge) color = dark;
      }
      if (hints && !touched && confidence && confidence[i] < 153 && ((x - y) & 7) < 3) color = hint;
      pixels[i] = color;
    }
  }
}

/** CSS background of a class's swatch; the same pattern as on the frame. */
export function swatch(canvas, entry, original) {
  canvas.width = 22;
  canvas.height = 22;
  const context = canvas.getContext("2d");
  const table = lookup([entry], original);
  const image = context.createImageData(22, 22), pixels = new Uint32Array(image.data.buffer);
  for (let y = 0; y < 22; y++)
    for (let x = 0; x < 22; x++) {
      const pattern = entry.pattern === "stripes" ? ((x + y) >> 2) & 1 : ((x >> 2) & 1) & ((y >> 2) & 1);
      pixels[22 * y + x] = table[pattern];
    }
  context.putImageData(image, 0, 0);
}
