// What is drawn above the frame: the area a click would change, the brush's circle, a polygon's corners, the cursor.

/** Stroke a path twice, so that it is seen on any ground. */
function stroke(context, path, { black = "#000", blackWidth, whiteWidth }) {
  for (const [color, width] of [[black, blackWidth], ["#fff", whiteWidth]]) {
    context.strokeStyle = color;
    context.lineWidth = width;
    context.beginPath();
    path();
    context.stroke();
  }
}

export class Marks {
  constructor(editor) {
    this.editor = editor;
    this.outline = null; // of the last pixel that was looked at
  }

  /** The mask or the patches have changed. */
  forget() { this.outline = null; }

  draw(context) {
    const { view, toolbox, working } = this.editor, { cursor } = view;
    const at = view.toPane({ x: cursor.x + 0.5, y: cursor.y + 0.5 });
    if (!working && toolbox.tool !== "move") this.#fill(context, this.#spans());
    if (["brush", "eraser"].includes(toolbox.tool)) this.#circle(context, at);
    if (toolbox.corners.length) this.#corners(context);
    this.#crosshair(context, at);
  }

  #spans() {
    const { info, level, toolbox, view } = this.editor;
    const key = [view.cursor.y * info.width + view.cursor.x, toolbox.tool, level].join(" ");
    if (this.outline?.key !== key) this.outline = { key, spans: toolbox.preview(view.cursor) };
    return this.outline.spans;
  }

  #fill(context, spans) {
    if (!spans) return;
    const { info: { width }, view } = this.editor;
    context.fillStyle = "rgba(255,255,255,0.28)";
    for (let s = 0; s < spans.length; s += 2) {
      const y = Math.floor(spans[s] / width), x = spans[s] - y * width, at = view.toPane({ x, y });
      context.fillRect(at.x, at.y, (spans[s + 1] - spans[s]) * view.scale, Math.max(1, view.scale));
    }
  }

  #circle(context, at) {
    const radius = Math.max(1, this.editor.toolbox.radius * this.editor.view.scale);
    stroke(context, () => context.arc(at.x, at.y, radius, 0, 7), { blackWidth: 3, whiteWidth: 1 });
  }

  #corners(context) {
    const { view, toolbox } = this.editor;
    const cursor = { x: view.cursor.x + 0.5, y: view.cursor.y + 0.5 };
    const points = [...toolbox.corners, cursor].map((point) => view.toPane(point));
    const path = () => points.forEach((point, k) => (k ? context.lineTo(point.x, point.y) : context.moveTo(point.x, point.y)));
    stroke(context, path, { blackWidth: 4, whiteWidth: 2 });
    context.fillStyle = "#fff";
    for (const point of points.slice(0, -1)) context.fillRect(point.x - 3, point.y - 3, 6, 6);
  }

  #crosshair(context, at) {
    const path = () => {
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(at.x + 4 * dx, at.y + 4 * dy);
        context.lineTo(at.x + 11 * dx, at.y + 11 * dy);
      }
    };
    stroke(context, path, { black: "rgba(0,0,0,.8)", blackWidth: 3, whiteWidth: 1 });
  }
}
