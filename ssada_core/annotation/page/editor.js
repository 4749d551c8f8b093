// One query on the desk: loads it, and ties mask, picture, view, tools, keys and drafts together.

import { call, getBytes, postJson } from "./api.js";
import { Autosave } from "./autosave.js";
import { $, ask, toast } from "./dom.js";
import { Marks } from "./marks.js";
import { Mask, UNSURE } from "./mask.js";
import { Panel } from "./panel.js";
import { Picture } from "./picture.js";
import { encodePng } from "./png.js";
import { Pointer } from "./pointer.js";
import { Patches } from "./shapes.js";
import { Toolbox } from "./tools.js";
import { View } from "./view.js";

const KEEP_MS = 10000;
const WHOLE_PIXEL = (point) => ({ x: Math.floor(point.x), y: Math.floor(point.y) });
const CORNER = (point) => ({ x: Math.round(point.x), y: Math.round(point.y) });

export class Editor {
  /** query: as the list has it; info: what open() answered; leave(next, editor): go back to the list, or to the next query. */
  constructor(query, info, state, leave) {
    this.query = query;
    this.info = info;
    this.versions = info.draft ? info.draft.versions : info.versions; // labels that this work knows of
    this.classes = state.label_space.classes;
    this.levels = state.levels;
    this.leave = leave;
    this.level = Math.floor(this.levels / 2);
    this.patchSets = [];
    this.loading = new AbortController(); // of patches, which nobody waits for when the frame goes
    this.closed = false;
  }

  async load() {
    const base = `queries/${this.info.id}`;
    const { width, height } = this.info;
    const size = width * height;
    const { signal } = this.loading;
    const patches = this.loadLevel(this.level).catch((error) => signal.aborted || toast(error.message, "bad"));
    const [picture, prediction, draft, label] = await Promise.all([
      call(`${base}/image`).then((answer) => answer.blob()).then(createImageBitmap),
      getBytes(`${base}/prediction`),
      this.info.draft ? getBytes(`${base}/draft`) : null,
      this.info.versions ? getBytes(`${base}/label`) : null,
    ]);
    if (this.closed) return;
    this.mask = new Mask(width, height, prediction ? prediction.subarray(0, size) : new Uint8Array(size).fill(UNSURE));
    this.confidence = prediction ? prediction.subarray(size) : null;
    if (label) this.mask.adopt(label);
    if (draft) this.mask.restore(draft);
    this.#build(picture);
    await patches; // the frame can be worked on meanwhile
    await this.#loadLevels();
  }

  async #loadLevels() {
    const { signal } = this.loading;
    for (let level = 0; level < this.levels && !signal.aborted; level++) await this.loadLevel(level).catch(() => {});
  }

  async loadLevel(level) {
    if (this.patchSets[level]) return;
    const bytes = await getBytes(`queries/${this.info.id}/superpixels/${level}`, this.loading.signal);
    this.patchSets[level] = new Patches(new Uint16Array(bytes.buffer));
    if (level === this.level && this.view && !this.closed) this.#usePatches();
  }

  #usePatches() {
    this.toolbox.patches = this.patchSets[this.level] || null;
    this.marks.forget();
    if (this.toolbox.patches) document.body.dataset.patches = this.level;
    this.view.mark();
  }

  #build(bitmap) {
    for (const canvas of document.querySelectorAll(".photo")) {
      canvas.width = this.info.width;
      canvas.height = this.info.height;
      canvas.getContext("2d").drawImage(bitmap, 0, 0, this.info.width, this.info.height);
    }
    this.picture = new Picture($("#overlay"), this.mask, this.classes);
    this.picture.confidence = this.confidence;
    this.toolbox = new Toolbox(this.mask);
    const marks = $("#marks").cloneNode();
    $("#marks").replaceWith(marks); // with its listeners, those of the last query go
    this.view = new View([$("#pane"), $("#raw")], marks, this.info.width, this.info.height);
    this.marks = new Marks(this);
    this.view.drawMarks = (context) => this.marks.draw(context);
    this.pointer = new Pointer(marks, this.view, this.#acts());
    this.autosave = new Autosave(this, (state, words) => this.panel.saved(state, words));
    this.panel = new Panel(this);
    this.mask.onchange = (box) => this.changed(box);
    this.panel.start();
    this.view.resized();
    this.view.fit();
    this.keeper = setInterval(() => this.keep(), KEEP_MS);
    marks.focus();
    document.body.dataset.ready = this.info.id;
    this.#usePatches();
  }

  changed(box) {
    this.picture.paint(box);
    this.autosave.changed();
    this.panel.later();
  }

  // The pointer

  #acts() {
    return {
      start: (point) => this.start(point),
      move: (points) => this.move(points),
      end: () => this.end(),
      cancel: () => this.toolbox.cancel(),
      hover: (point) => this.hover(point),
      pick: (point) => this.pick(WHOLE_PIXEL(point)),
    };
  }

  start(point) {
    $("#marks").focus();
    const pixel = WHOLE_PIXEL(point);
    if (this.toolbox.tool === "polygon") return this.corner(point);
    if (!this.view.inside(pixel)) return undefined;
    this.view.cursor = pixel;
    if (this.toolbox.tool === "superpixel" && !this.toolbox.patches) return toast("The patches are being made: try again in a moment, or use another tool.");
    this.working = true;
    this.toolbox.start(pixel);
    return this.view.mark();
  }

  move(points) {
    if (!this.working) return;
    for (const point of points) {
      const pixel = WHOLE_PIXEL(point), brush = ["brush", "eraser"].includes(this.toolbox.tool);
      if (!brush && !this.view.inside(pixel)) continue;
      this.toolbox.move(pixel);
      if (this.view.inside(pixel)) this.view.cursor = pixel;
    }
    this.view.mark();
  }

  end() {
    if (!this.working) return;
    this.working = false;
    this.toolbox.end();
    this.panel.later();
  }

  hover(point) {
    const pixel = WHOLE_PIXEL(point);
    if (!this.view.inside(pixel)) return;
    this.view.cursor = pixel;
    this.view.mark();
    this.panel.under(pixel);
  }

  pick(pixel) {
    if (!this.view.inside(pixel)) return;
    this.panel.choose(this.mask.classAt(pixel.y * this.info.width + pixel.x));
  }

  corner(point) {
    const corner = CORNER(point), { corners } = this.toolbox;
    const first = corners[0];
    if (first && corners.length > 2 && Math.hypot(first.x - point.x, first.y - point.y) * this.view.scale < 8) this.closePolygon();
    else this.toolbox.addCorner(corner);
    this.view.mark();
  }

  closePolygon() {
    this.toolbox.closePolygon();
    this.view.mark();
    this.panel.later();
  }

  /** The tool at the cursor, by key; held down, it goes on with every move of the cursor. */
  press() {
    const { x, y } = this.view.cursor;
    if (this.toolbox.tool === "polygon") return this.corner({ x, y });
    if (this.working || this.toolbox.tool === "move") return undefined;
    return this.start({ x, y });
  }

  moveCursor(dx, dy) {
    const { x, y } = this.view.cursor;
    this.view.moveCursor(x + dx, y + dy);
    if (this.working) this.move([this.view.cursor]);
    this.panel.under(this.view.cursor);
  }

  /** To the patch of which the model is least sure and that nobody has touched. */
  nextDoubt() {
    const patches = this.patchSets[this.level];
    if (!patches || !this.confidence) return;
    this.visited = this.visited || new Set();
    let worst = -1, least = Infinity;
    for (let number = 0; number < patches.count; number++) {
      const members = patches.members(number);
      if (!members.length || this.visited.has(number)) continue;
      const middle = members[members.length >> 1];
      if (this.mask.isTouched(middle)) continue;
      let sum = 0;
      for (const index of members) sum += this.confidence[index];
      if (sum / members.length < least) [least, worst] = [sum / members.length, number];
    }
    if (worst < 0) return;
    this.visited.add(worst);
    const members = patches.members(worst), index = members[members.length >> 1];
    this.view.moveCursor(index % this.info.width, Math.floor(index / this.info.width));
    this.panel.under(this.view.cursor);
  }

  setLevel(level) {
    this.level = Math.max(0, Math.min(this.levels - 1, level));
    this.visited = null;
    this.#usePatches();
    this.loadLevel(this.level).catch((error) => toast(error.message, "bad"));
  }

  undo() { this.mask.undo(); this.marks.forget(); this.view.mark(); }
  redo() { this.mask.redo(); this.marks.forget(); this.view.mark(); }
  confirmAll() { this.mask.confirm(this.mask.compose(this.picture.options.rule, this.confidence)); }

  // Out

  async keep() {
    try {
      await postJson(`queries/${this.info.id}/keep`);
    } catch (error) {
      if (error.status === 409) this.panel.saved("taken", error.message);
    }
  }

  async submit(confirmed = false) {
    if (this.submitting) return;
    this.submitting = true;
    try {
      await this.autosave.save();
      const png = await encodePng(this.mask.compose(this.picture.options.rule, this.confidence), this.info.width, this.info.height);
      const path = `queries/${this.info.id}/label?versions=${this.versions}&confirmed=${confirmed}`;
      const result = await (await call(path, { method: "POST", body: png })).json();
      await this.#answered(result);
    } catch (error) {
      await this.#failed(error);
    } finally {
      this.submitting = false;
    }
  }

  async #answered({ status, why, versions }) {
    if (status === "accepted") {
      toast("Label stored. Thank you!", "good");
      localStorage.setItem("ssada-knows", "yes");
      this.close(false);
      this.leave(true, this);
    } else if (status === "held") {
      this.versions = versions;
      const again = { label: "Look again", value: "back" }, sure = { label: "It is right: submit", value: "sure", kind: "primary" };
      const choice = await ask({ title: "This label looks unusual", text: `It is held: ${why}.`, buttons: [sure, again] });
      if (choice === "sure") {
        this.submitting = false;
        await this.submit(true);
      }
    } else await ask({ title: "This label cannot be used yet", text: `${why}.`, buttons: [{ label: "Go on", value: "ok", kind: "primary" }] });
  }

  async #failed(error) {
    const now = error.status === 409 ? await postJson(`queries/${this.info.id}/open`).catch(() => null) : null;
    if (!now || now.versions <= this.versions) { // nobody's answer stands against this one
      toast(`Not submitted: ${error.message}. Your work is kept; try again.`, "bad");
      return;
    }
    const choice = await ask({
      title: "Somebody was faster",
      text: `${error.message}. Your own work is kept as a draft until you choose.`,
      buttons: [{ label: "Replace theirs by mine", value: "mine" }, { label: "Keep theirs", value: "theirs", kind: "primary" }],
    });
    if (choice === "mine") {
      this.versions = now.versions;
      this.submitting = false;
      await this.submit();
    } else if (choice === "theirs") {
      await this.autosave.drop();
      this.close(false);
      this.leave(false, this);
    }
  }

  async giveUp(kind) {
    const skip = kind === "skip";
    const reason = await ask({
      title: skip ? "Skip this frame" : "Reject this frame",
      text: skip ? "It stays in the pool, unlabelled." : "Its image is deleted for good, and copies of it are not stored again.",
      input: "Why?",
      suggestions: skip ? ["nothing new in it", "too hard to label", "no time"] : ["blurred", "private", "broken image"],
      buttons: [{ label: "Cancel", value: null }, { label: skip ? "Skip it" : "Delete the frame", value: "go", kind: skip ? "primary" : "danger" }],
    });
    if (!reason) return;
    this.#pause();
    await this.autosave.save();
    try {
      await postJson(`queries/${this.info.id}/${kind}`, { reason });
      toast(skip ? "Skipped." : "The frame is deleted.");
      this.close(false);
      this.leave(true, this);
    } catch (error) {
      toast(error.message, "bad");
      if (!this.closed) this.#resume();
    }
  }

  /** Ask the server for nothing more about a frame that is about to go. */
  #pause() {
    this.loading.abort();
    clearInterval(this.keeper);
  }

  #resume() {
    this.loading = new AbortController();
    this.keeper = setInterval(() => this.keep(), KEEP_MS);
    this.#loadLevels();
  }

  /** Give the query back. */
  close(save = true) {
    if (this.closed) return;
    this.closed = true;
    this.#pause();
    if (this.view) { // else they are those of another frame
      delete document.body.dataset.ready;
      delete document.body.dataset.patches;
    }
    const id = this.info.id;
    const release = () => call(`queries/${id}/close`, { method: "POST", json: {}, keepalive: true }).catch(() => {});
    if (save && this.autosave) this.autosave.save().then(release);
    else release();
    if (!save && this.autosave) this.autosave.close();
    this.panel?.close();
    this.view?.close();
  }
}

