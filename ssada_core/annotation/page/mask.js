// The label in the making: a class for every pixel, whether a human has touched it, and every step there was.

export const UNSURE = 255;
const TOUCHED = 256;

export class Mask {
  /** base: the starting label, one byte per pixel; 255 where there is none. */
  constructor(width, height, base) {
    this.width = width;
    this.height = height;
    this.base = base;
    this.values = Uint16Array.from(base); // class | TOUCHED
    this.past = [];
    this.future = [];
    this.step = null;
    this.onchange = () => {};
  }

  classAt(index) { return this.values[index] & 255; }
  isTouched(index) { return (this.values[index] & TOUCHED) !== 0; }
  get canUndo() { return this.past.length > 0; }
  get canRedo() { return this.future.length > 0; }

  /** Everything up to end() is one step of undo. */
  begin() { this.step = []; }

  end() {
    if (this.step && this.step.length) {
      this.past.push(this.step);
      this.future = [];
    }
    this.step = null;
  }

  /** Give spans [start, end, start, end, …] a class; -1 gives them the starting label back. only: leave others alone. */
  paint(spans, value, only = -1) {
    const runs = [];
    for (let s = 0; s < spans.length; s += 2) this.#paintSpan(spans[s], spans[s + 1], value, only, runs);
    if (!runs.length) return;
    const alone = !this.step;
    if (alone) this.begin();
    this.step.push(Int32Array.from(runs));
    if (alone) this.end();
    this.onchange(this.#box(runs));
  }

  #paintSpan(start, end, value, only, runs) {
    const { values, base } = this;
    for (let i = start; i < end; ) {
      const old = values[i];
      const fresh = value < 0 ? base[i] : value | TOUCHED;
      if (old === fresh || (only >= 0 && (old & 255) !== only)) { i++; continue; }
      let j = i + 1;
      while (j < end && values[j] === old && (value >= 0 || base[j] === fresh)) j++;
      values.fill(fresh, i, j);
      runs.push(i, j - i, old, fresh);
      i = j;
    }
  }

  undo() { this.#move(this.past, this.future, (step) => step.slice().reverse(), 2); }
  redo() { this.#move(this.future, this.past, (step) => step, 3); }

  #move(from, to, order, which) {
    const step = from.pop();
    if (!step) return;
    to.push(step);
    for (const runs of order(step)) {
      // Within a patch no pixel comes twice, so that its runs may be written in any order.
      for (let r = 0; r < runs.length; r += 4) this.values.fill(runs[r + which], runs[r], runs[r] + runs[r + 1]);
      this.onchange(this.#box(runs));
    }
  }

  /** Make what is shown one's own: every pixel that has a class counts as touched. */
  confirm(shown) {
    this.begin();
    for (let i = 0; i < this.values.length; ) {
      const value = shown[i];
      let j = i + 1;
      while (j < shown.length && shown[j] === value) j++;
      if (value !== UNSURE) this.paint([i, j], value);
      i = j;
    }
    this.end();
  }

  /** The label to submit. rule: {kind: "all" | "above" | "none", share: 0–1}; confidence: bytes or null. */
  compose(rule, confidence) {
    const out = new Uint8Array(this.values.length);
    const least = rule.kind === "all" ? 0 : rule.kind === "none" ? Infinity : rule.share * 255;
    for (let i = 0; i < out.length; i++) {
      const value = this.values[i];
      const taken = value & TOUCHED || (confidence ? confidence[i] : 255) >= least;
      out[i] = taken ? value & 255 : UNSURE;
    }
    return out;
  }

  /** Label above touched pixels, as drafts are kept. */
  planes() {
    const size = this.values.length;
    const out = new Uint8Array(2 * size);
    for (let i = 0; i < size; i++) {
      out[i] = this.values[i] & 255;
      out[size + i] = this.values[i] >> 8;
    }
    return out;
  }

  /** Take over a draft. */
  restore(planes) {
    const size = this.values.length;
    for (let i = 0; i < size; i++) this.values[i] = planes[size + i] ? planes[i] | TOUCHED : this.base[i];
    this.onchange([0, 0, this.width, this.height]);
  }

  /** Take over a finished label: what it says counts as touched, and so does what it leaves open. */
  adopt(label) {
    for (let i = 0; i < label.length; i++) this.values[i] = label[i] | TOUCHED;
    this.onchange([0, 0, this.width, this.height]);
  }

  #box(runs) {
    const { width } = this;
    let left = width, top = this.height, right = 0, bottom = 0;
    for (let r = 0; r < runs.length; r += 4) {
      const first = runs[r], last = first + runs[r + 1] - 1;
      const y0 = Math.floor(first / width), y1 = Math.floor(last / width);
      top = Math.min(top, y0);
      bottom = Math.max(bottom, y1 + 1);
      left = Math.min(left, y0 === y1 ? first - y0 * width : 0);
      right = Math.max(right, y0 === y1 ? last - y1 * width + 1 : width);
    }
    return [left, top, right, bottom];
  }
}
