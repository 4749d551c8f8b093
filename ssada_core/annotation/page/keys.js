// The keyboard does everything.

import { $ } from "./dom.js";
import { UNSURE } from "./mask.js";
import { TOOLS } from "./tools.js";

export const HELP = [
  ["1 … 9, 0", "class (with Shift: from the 11th on)"],
  ["U", "unsure: this pixel is not labelled"],
  [TOOLS.map((tool) => tool.key.toUpperCase()).join(" "), TOOLS.map((tool) => tool.label.toLowerCase()).join(", ")],
  ["Arrows", "move the cursor; with Shift ten times as far"],
  ["Space", "use the tool at the cursor; hold it and move to paint"],
  ["Enter", "use the tool; close a polygon"],
  ["[ ]", "smaller, larger patches or brush"],
  ["N", "to the next place the model is unsure of"],
  ["I", "take the class under the cursor (mouse: right click)"],
  ["X", "change only the class that is clicked"],
  ["A", "confirm everything as it is shown"],
  ["Z, Y", "undo, redo"],
  ["+ − Home", "zoom in, out, whole frame (mouse: wheel)"],
  ["O, Shift+O", "label fainter, stronger"],
  ["D H V C", "difference, hints, side by side, original colours"],
  ["Ctrl+Enter", "submit"],
  ["K", "skip"],
  ["Delete", "reject: deletes the frame"],
  ["Escape", "back to the list"],
];

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function classOf(event) {
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(event.code)?.[1];
  if (digit === undefined) return -1;
  const index = digit === "0" ? 9 : Number(digit) - 1;
  return event.shiftKey ? index + 10 : index;
}

/** Listen; returns what stops it. */
export function bindKeys(editor, panel) {
  const plain = {
    u: () => panel.choose(UNSURE), n: () => editor.nextDoubt(), i: () => editor.pick(editor.view.cursor), x: () => panel.toggle("only"),
    a: () => editor.confirmAll(), z: () => editor.undo(), y: () => editor.redo(), o: () => panel.setOpacity(Number($("#opacity").value) - 10),
    d: () => panel.toggle("difference"), h: () => panel.toggle("hints"), v: () => panel.toggle("side"), c: () => panel.toggle("original"),
    k: () => editor.giveUp("skip"), delete: () => editor.giveUp("reject"), escape: () => escape(), "[": () => panel.changeSize(-1),
    "]": () => panel.changeSize(1), "+": () => editor.view.zoom(1.25, place()), "=": () => editor.view.zoom(1.25, place()),
    "-": () => editor.view.zoom(0.8, place()), home: () => editor.view.fit(), backspace: () => { editor.toolbox.corners.pop(); editor.view.mark(); },
    ...Object.fromEntries(TOOLS.map(({ name, key }) => [key, () => panel.pickTool(name)])),
  };
  const place = () => editor.view.toPane(editor.view.cursor);

  function escape() {
    if (editor.toolbox.corners.length) {
      editor.toolbox.corners = [];
      editor.view.mark();
    } else $("#back").click();
  }

  function down(event) {
    const field = event.target.closest?.("input[type=text], dialog");
    if (field || event.altKey || document.querySelector("dialog[open]")) return;
    if (control(event) || onFrame(event)) {
      event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.target.matches?.("input[type=range]") && ARROWS[event.key]) return;
    const index = classOf(event);
    const key = event.key.toLowerCase();
    if (index >= 0 && index < editor.classes.length) panel.choose(index);
    else if (event.shiftKey && key === "o") panel.setOpacity(Number($("#opacity").value) + 10);
    else if (plain[key]) plain[key]();
    else return;
    event.preventDefault();
  }

  function control(event) {
    if (!(event.ctrlKey || event.metaKey)) return false;
    const key = event.key.toLowerCase();
    if (key === "enter") editor.submit();
    else if (key === "z" && event.shiftKey) editor.redo();
    else if (key === "z") editor.undo();
    else if (key === "y") editor.redo();
    else return false;
    return true;
  }

  /** Keys that mean the cursor, unless a button or a slider has the focus. */
  function onFrame(event) {
    if (event.ctrlKey || event.metaKey || !["marks", ""].includes(event.target.id) || event.target.matches("button, input, a")) return false;
    const arrow = ARROWS[event.key];
    if (arrow) {
      const step = event.shiftKey ? 10 : 1;
      editor.moveCursor(arrow[0] * step, arrow[1] * step);
    } else if (event.key === "Enter" && editor.toolbox.tool === "polygon") editor.closePolygon();
    else if (event.key === "Enter" || event.key === " ") {
      if (!event.repeat) editor.press();
      if (event.key === "Enter") editor.end();
    } else return false;
    return true;
  }

  function up(event) {
    if (event.key === " ") editor.end();
  }

  document.addEventListener("keydown", down);
  document.addEventListener("keyup", up);
  return () => {
    document.removeEventListener("keydown", down);
    document.removeEventListener("keyup", up);
  };
}
