// Mouse, pen and fingers on the frame: one finger or the left button works, two fingers or another button move.

const CLICK_PX = 4;

export class Pointer {
  /** act: {start(point), move(points), end(), cancel(), hover(point), pick(point)} in frame pixels. */
  constructor(pane, view, act) {
    this.view = view;
    this.act = act;
    this.fingers = new Map();
    this.working = null;
    this.panning = null;
    pane.addEventListener("pointerdown", (event) => this.down(event, pane));
    pane.addEventListener("pointermove", (event) => this.move(event));
    pane.addEventListener("pointerup", (event) => this.up(event));
    pane.addEventListener("pointercancel", (event) => this.up(event));
    pane.addEventListener("contextmenu", (event) => event.preventDefault());
    pane.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  down(event, pane) {
    pane.setPointerCapture(event.pointerId);
    const place = this.view.place(event);
    this.fingers.set(event.pointerId, place);
    if (event.pointerType === "touch" && this.fingers.size === 2) {
      if (this.working !== null) this.act.cancel();
      this.working = null;
      return;
    }
    if (this.fingers.size > 1) return;
    if (event.button === 0 && !this.moveOnly) {
      this.working = event.pointerId;
      this.act.start(this.view.toFrame(place), event);
    } else this.panning = { id: event.pointerId, button: event.button, from: place, moved: false };
  }

  move(event) {
    const place = this.view.place(event), before = this.fingers.get(event.pointerId);
    if (before && this.fingers.size === 2) this.pinch(event.pointerId, place);
    else if (this.panning && this.panning.id === event.pointerId) {
      const { from } = this.panning;
      if (Math.hypot(place.x - from.x, place.y - from.y) > CLICK_PX) this.panning.moved = true;
      this.view.pan(place.x - before.x, place.y - before.y);
    } else if (this.working === event.pointerId) {
      const all = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
      const events = all.length ? all : [event];
      this.act.move(events.map((each) => this.view.toFrame(this.view.place(each))));
    } else this.act.hover(this.view.toFrame(place));
    if (before) this.fingers.set(event.pointerId, place);
  }

  pinch(id, place) {
    const [other] = [...this.fingers].filter(([key]) => key !== id).map(([, value]) => value);
    const before = this.fingers.get(id);
    const far = (a, b) => Math.max(1, Math.hypot(a.x - b.x, a.y - b.y));
    this.view.pan((place.x - before.x) / 2, (place.y - before.y) / 2);
    this.view.zoom(far(place, other) / far(before, other), { x: (place.x + other.x) / 2, y: (place.y + other.y) / 2 });
  }

  up(event) {
    this.fingers.delete(event.pointerId);
    if (this.working === event.pointerId) {
      this.working = null;
      this.act.end();
    }
    if (this.panning && this.panning.id === event.pointerId) {
      if (!this.panning.moved && this.panning.button === 2) this.act.pick(this.view.toFrame(this.panning.from));
      this.panning = null;
    }
  }

  wheel(event) {
    event.preventDefault();
    this.view.zoom(Math.exp(-Math.sign(event.deltaY) * Math.min(Math.abs(event.deltaY), 100) * 0.002), this.view.place(event));
  }
}
