// Drafts: at most a second of work is not on the server's disk.

import { call } from "./api.js";
import { toast } from "./dom.js";
import { encodePng } from "./png.js";

const DELAY_MS = 700;

export class Autosave {
  /** tell: called with "saved", "saving", "failed" or "taken", and words. */
  constructor(editor, tell) {
    this.id = editor.info.id;
    this.editor = editor;
    this.mask = editor.mask;
    this.tell = tell;
    this.dirty = false;
    this.timer = 0;
    this.running = null;
    this.closed = false;
  }

  changed() {
    if (!this.dirty && !this.closed) this.tell("saving", "");
    this.dirty = true;
    if (!this.timer && !this.running && !this.closed) this.timer = setTimeout(() => this.save(), DELAY_MS);
  }

  /** Save now if there is something to save; resolves when it is on the server's disk, or has failed. */
  async save() {
    clearTimeout(this.timer);
    this.timer = 0;
    if (this.running) await this.running;
    if (!this.dirty || this.closed) return;
    this.running = this.#send();
    await this.running;
    this.running = null;
    if (this.dirty && !this.closed) this.timer = setTimeout(() => this.save(), DELAY_MS);
  }

  async #send() {
    this.dirty = false;
    this.tell("saving", "");
    try {
      const png = await encodePng(this.mask.planes(), this.mask.width, 2 * this.mask.height);
      // Small ones are sent even when the page is closed meanwhile; browsers allow it up to 64 KB.
      await call(`queries/${this.id}/draft?versions=${this.editor.versions}`, { method: "PUT", body: png, keepalive: png.size < 60000 });
      this.tell(this.dirty ? "saving" : "saved", "");
    } catch (error) {
      this.dirty = true;
      if (error.status === 409) this.closed = true;
      this.tell(error.status === 409 ? "taken" : "failed", error.message);
    }
  }

  /** Throw the draft away, also the one on the server. */
  async drop() {
    this.close();
    await this.running;
    await call(`queries/${this.id}/draft`, { method: "DELETE" }).catch((error) => toast(error.message, "bad"));
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
  }
}
