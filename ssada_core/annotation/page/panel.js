// Everything round the frame: tools, classes, options, status line and keys.

import { me } from "./api.js";
import { $, ago, make, percent, toast } from "./dom.js";
import { UNSURE } from "./mask.js";
import { swatch } from "./picture.js";
import { TOOLS } from "./tools.js";
import { bindKeys } from "./keys.js";

const MOST_RADIUS = 120;
const SIZES = ["finest", "fine", "medium", "coarse", "largest"];

export class Panel {
  constructor(editor) {
    this.editor = editor;
    this.undo = [];
    this.pending = 0;
  }

  on(selector, event, handler) {
    const element = $(selector);
    element.addEventListener(event, handler);
    this.undo.push(() => element.removeEventListener(event, handler));
  }

  start() {
    const { editor } = this, { info, query } = editor;
    $("#title").textContent = query.unsure_classes?.length ? `Unsure of ${query.unsure_classes.join(", ")}` : info.id;
    $("#subtitle").textContent = [query.reason, query.camera, ago(query.age_s)].filter(Boolean).join(" · ");
    $("#audit-note").hidden = !query.audit;
    $("#steps").hidden = localStorage.getItem("ssada-knows") === "yes";
    this.on("#steps button", "click", () => { localStorage.setItem("ssada-knows", "yes"); $("#steps").hidden = true; });
    this.#tools();
    this.#classes();
    this.#options();
    this.#buttons();
    this.undo.push(bindKeys(editor, this));
    this.choose(Number(sessionStorage.getItem("ssada-class") || 0));
    this.pickTool("superpixel");
    this.saved(info.draft ? "saved" : "", info.draft ? this.#draftWords(info) : "");
    this.refresh();
  }

  #draftWords({ draft, versions, history }) {
    const since = draft.versions < versions ? `; ${history[versions - 1].annotator || "somebody"} answered meanwhile` : "";
    const words = draft.own ? `Your draft is back${since}` : `You continue the draft of ${draft.name || "somebody"}`;
    toast(words);
    return words;
  }

  close() {
    for (const revert of this.undo) revert();
    clearTimeout(this.pending);
  }

  #tools() {
    $("#tools").replaceChildren(...TOOLS.map(({ name, key, label, hint }) =>
      make("button", { type: "button", class: "tool", "data-tool": name, title: `${label} (${key.toUpperCase()}): ${hint}`, onclick: () => this.pickTool(name) },
        make("span", { class: `icon ${name}`, "aria-hidden": "true" }), label, make("kbd", {}, key.toUpperCase()))));
  }

  #classes() {
    const { classes } = this.editor;
    const rows = classes.map((entry, index) => this.#classRow(entry, index));
    rows.push(make("button", { type: "button", class: "class", "data-class": UNSURE, onclick: () => this.choose(UNSURE) },
      make("span", { class: "swatch unsure" }), make("span", { class: "name" }, "unsure"), make("kbd", {}, "U")));
    $("#classes").replaceChildren(...rows);
  }

  #classRow(entry, index) {
    const color = make("canvas", { class: "swatch" });
    swatch(color, entry, this.editor.picture.options.original);
    const key = index < 9 ? String(index + 1) : index === 9 ? "0" : index < 20 ? `⇧${(index - 9) % 10}` : "";
    return make("button", { type: "button", class: "class", "data-class": index, onclick: () => this.choose(index) },
      color, make("span", { class: "name" }, entry.name), make("span", { class: "share" }), make("kbd", {}, key));
  }

  #options() {
    const { editor } = this, { picture } = editor;
    const opacity = localStorage.getItem("ssada-opacity") || "55";
    $("#opacity").value = opacity;
    this.setOpacity(Number(opacity));
    this.on("#opacity", "input", (event) => this.setOpacity(Number(event.target.value)));
    for (const name of ["difference", "hints", "original", "side", "only"]) {
      $(`#${name}`).checked = name === "only" ? editor.toolbox.only : name === "side" ? !$("#raw").hidden : false;
      this.on(`#${name}`, "change", (event) => this.#toggled(name, event.target.checked));
    }
    const rule = JSON.parse(localStorage.getItem("ssada-rule") || "null") || { kind: "all", share: 0.6 };
    $(`input[name=rule][value=${rule.kind}]`).checked = true;
    $("#share").value = 100 * rule.share;
    for (const radio of document.querySelectorAll("input[name=rule]")) {
      const handler = () => this.#setRule();
      radio.addEventListener("change", handler);
      this.undo.push(() => radio.removeEventListener("change", handler));
    }
    this.on("#share", "input", () => { $("input[name=rule][value=above]").checked = true; this.#setRule(); });
    this.on("#size", "input", (event) => this.setSize(Number(event.target.value)));
    picture.set({ difference: false, hints: false, original: false, rule });
    $("#rules").hidden = !editor.confidence;
    this.#ruleWords();
  }

  #setRule() {
    const rule = { kind: $("input[name=rule]:checked").value, share: $("#share").value / 100 };
    localStorage.setItem("ssada-rule", JSON.stringify(rule));
    this.editor.picture.set({ rule });
    this.#ruleWords();
    this.later();
  }

  #ruleWords() { $("#share-words").textContent = `${$("#share").value} %`; }

  #toggled(name, checked) {
    const { editor } = this;
    if (name === "only") editor.toolbox.only = checked;
    else if (name === "side") {
      $("#raw").hidden = !checked;
      $("#stage").classList.toggle("split", checked);
      editor.view.fit();
    } else {
      editor.picture.set({ [name]: checked });
      if (name === "original") this.#recolour();
    }
  }

  #recolour() {
    for (const row of document.querySelectorAll("#classes .class canvas"))
      swatch(row, this.editor.classes[row.parentElement.dataset.class], this.editor.picture.options.original);
  }

  toggle(name) {
    const box = $(`#${name}`);
    box.checked = !box.checked;
    this.#toggled(name, box.checked);
  }

  setOpacity(value) {
    const kept = Math.max(0, Math.min(100, value));
    $("#opacity").value = kept;
    $("#overlay").style.opacity = kept / 100;
    localStorage.setItem("ssada-opacity", kept);
  }

  /** Size of the brush, or of the patches. */
  setSize(value) {
    const { editor } = this;
    if (editor.toolbox.tool === "superpixel") editor.setLevel(value);
    else editor.toolbox.radius = Math.max(0.5, Math.min(MOST_RADIUS, value));
    this.#showSize();
    editor.view.mark();
  }

  changeSize(by) {
    const { level, toolbox } = this.editor;
    if (toolbox.tool === "superpixel") this.setSize(level + by);
    else this.setSize(by > 0 ? Math.ceil(toolbox.radius * 1.25 + 0.5) : Math.floor(toolbox.radius / 1.25));
  }

  #showSize() {
    const { level, levels, toolbox } = this.editor, patches = toolbox.tool === "superpixel";
    const input = $("#size");
    [input.min, input.max, input.step] = patches ? [0, levels - 1, 1] : [1, MOST_RADIUS, 1];
    input.value = patches ? level : toolbox.radius;
    $("#size-words").textContent = patches ? SIZES[level] || String(level) : `${Math.round(2 * toolbox.radius)} px`;
    $("#size-row").hidden = !["superpixel", "brush", "eraser"].includes(toolbox.tool);
  }

  #buttons() {
    const { editor } = this;
    const actions = {
      undo: () => editor.undo(), redo: () => editor.redo(), fit: () => editor.view.fit(),
      "zoom-in": () => editor.view.zoom(1.4), "zoom-out": () => editor.view.zoom(1 / 1.4),
      doubt: () => editor.nextDoubt(), confirm: () => editor.confirmAll(),
      submit: () => editor.submit(), skip: () => editor.giveUp("skip"), reject: () => editor.giveUp("reject"),
      back: () => { editor.close(); editor.leave(false, editor); },
    };
    for (const [name, act] of Object.entries(actions))
      this.on(`#${name}`, "click", (event) => {
        act();
        if (event.detail > 0 && !editor.closed && name !== "submit") $("#marks").focus(); // the mouse did it: keys go to the frame
      });
  }

  pickTool(name) {
    const { editor } = this;
    editor.toolbox.tool = name;
    editor.toolbox.corners = [];
    editor.pointer.moveOnly = name === "move";
    editor.marks.forget();
    for (const button of document.querySelectorAll(".tool")) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
    $("#hint").textContent = TOOLS.find((tool) => tool.name === name).hint;
    $("#pane").dataset.tool = name;
    this.#showSize();
    editor.view.mark();
  }

  choose(value) {
    const { classes, toolbox } = this.editor;
    const kept = value === UNSURE || value < classes.length ? value : 0;
    toolbox.value = kept;
    sessionStorage.setItem("ssada-class", kept);
    for (const button of document.querySelectorAll("#classes .class")) {
      const chosen = Number(button.dataset.class) === kept;
      button.setAttribute("aria-pressed", String(chosen));
      if (chosen) button.scrollIntoView({ block: "nearest" });
    }
    $("#chosen").textContent = this.nameOf(kept);
  }

  nameOf(value) { return value === UNSURE ? "unsure" : this.editor.classes[value]?.name || `class ${value}`; }

  under(pixel) {
    const { mask, confidence, info } = this.editor, index = pixel.y * info.width + pixel.x;
    const now = this.nameOf(mask.classAt(index));
    const predicted = mask.base[index] === UNSURE ? "no prediction" : `predicted ${this.nameOf(mask.base[index])}`;
    const sure = confidence ? `, ${percent(confidence[index] / 255)} sure` : "";
    $("#under").textContent = `${now}${mask.isTouched(index) ? " (yours)" : ""} — ${predicted}${sure}`;
  }

  saved(state, words) {
    const text = { saving: "Saving…", saved: "Draft saved", failed: "Not saved, trying again", taken: "Taken by somebody else" };
    $("#saved").textContent = text[state] || "";
    $("#saved").className = state;
    $("#saved").title = words;
    if (state === "taken") toast(`${words}. What you do now is not saved.`, "bad");
  }

  /** Bring the figures up to date, soon: many strokes come in a row. */
  later() {
    $("#undo").disabled = !this.editor.mask.canUndo;
    $("#redo").disabled = !this.editor.mask.canRedo;
    clearTimeout(this.pending);
    this.pending = setTimeout(() => this.refresh(), 250);
  }

  refresh() {
    const { mask, picture, confidence } = this.editor;
    const label = mask.compose(picture.options.rule, confidence);
    const counts = new Uint32Array(256);
    let own = 0;
    for (let i = 0; i < label.length; i++) {
      counts[label[i]]++;
      if (label[i] !== UNSURE && mask.isTouched(i)) own++;
    }
    const total = label.length, none = counts[UNSURE];
    $("#figures").textContent = `${percent(own / total)} by you · ${percent(none / total)} left unlabelled`;
    for (const row of document.querySelectorAll("#classes .class")) {
      const share = $(".share", row);
      if (share) share.textContent = counts[row.dataset.class] ? percent(counts[row.dataset.class] / total) : "";
    }
    $("#undo").disabled = !mask.canUndo;
    $("#redo").disabled = !mask.canRedo;
  }
}

export function askName(ask) {
  return ask({ title: "Who is labelling?", text: "Your name stands beside your labels, and others see what you are working on.",
    input: "Your name", buttons: [{ label: "Start", value: "ok", kind: "primary" }] }).then((name) => { if (name) me.name = name; });
}
