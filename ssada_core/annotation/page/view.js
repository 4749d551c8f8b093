// Zoom and pan, the pointer in frame pixels, and the marks drawn above the frame: cursor, brush, outlines.

const MOST = 32;

export class View {
  /** panes: elements that each hold a .sheet; the first one takes the pointer. marks: a canvas over the first. */
  constructor(panes, marks, width, height) {
    this.panes = panes;
    this.marks = marks;
    this.width = width;
    this.height = height;
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.cursor = { x: width >> 1, y: height >> 1 };
    this.drawMarks = () => {};
    this.fitted = true;
    this.observer = new ResizeObserver(() => this.resized());
    this.observer.observe(panes[0]);
  }

  close() { this.observer.disconnect(); }

  resized() {
    const box = this.panes[0].getBoundingClientRect();
    this.marks.width = Math.max(1, Math.round(box.width));
    this.marks.height = Math.max(1, Math.round(box.height));
    if (this.fitted) this.fit();
    else this.apply();
  }

  fit() {
    const box = this.panes[0].getBoundingClientRect();
    this.scale = Math.max(0.05, Math.min((box.width - 16) / this.width, (box.height - 16) / this.height));
    this.x = (box.width - this.width * this.scale) / 2;
    this.y = (box.height - this.height * this.scale) / 2;
    this.fitted = true;
    this.apply();
  }

  /** Zoom by a factor round a place of the pane, in CSS pixels. */
  zoom(factor, at = null) {
    const box = this.panes[0].getBoundingClientRect();
    const place = at || { x: box.width / 2, y: box.height / 2 };
    const scale = Math.max(0.1, Math.min(MOST, this.scale * factor));
    this.x = place.x - ((place.x - this.x) * scale) / this.scale;
    this.y = place.y - ((place.y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.apply();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.apply();
  }

  apply() {
    for (const pane of this.panes) {
      const sheet = pane.querySelector(".sheet");
      sheet.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
      sheet.classList.toggle("pixels", this.scale >= 2);
    }
    this.mark();
  }

  /** Place of an event in its pane, CSS pixels. */
  place(event) {
    const box = this.panes[0].getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  /** Frame pixels (fractions) of a place in the pane. */
  toFrame(place) { return { x: (place.x - this.x) / this.scale, y: (place.y - this.y) / this.scale }; }
  toPane(point) { return { x: this.x + point.x * this.scale, y: this.y + point.y * this.scale }; }
  inside(point) { return point.x >= 0 && point.y >= 0 && point.x < this.width && point.y < this.height; }

  moveCursor(x, y) {
    this.cursor = { x: Math.max(0, Math.min(this.width - 1, x)), y: Math.max(0, Math.min(this.height - 1, y)) };
    this.reveal(this.cursor);
  }

  /** Bring a pixel into sight. */
  reveal(point) {
    const box = this.panes[0].getBoundingClientRect(), place = this.toPane(point), margin = 40;
    const dx = place.x < margin ? margin - place.x : place.x > box.width - margin ? box.width - margin - place.x : 0;
    const dy = place.y < margin ? margin - place.y : place.y > box.height - margin ? box.height - margin - place.y : 0;
    if ((dx || dy) && !this.fitted) this.pan(dx, dy);
    else this.mark();
  }

  mark() {
    const context = this.marks.getContext("2d");
    context.clearRect(0, 0, this.marks.width, this.marks.height);
    this.drawMarks(context);
  }
}
