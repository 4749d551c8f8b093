// Pixels as spans [start, end, …] of the frame's row-by-row numbering: brush strokes, polygons, connected regions.

/** Pixels whose centre is no farther than radius from the line between the centres of two pixels. */
export function stroke(from, to, radius, width, height) {
  const spans = [];
  const ax = from.x + 0.5, ay = from.y + 0.5, dx = to.x - from.x, dy = to.y - from.y;
  const length2 = dx * dx + dy * dy, radius2 = radius * radius;
  const near = (x, y) => {
    const px = x + 0.5 - ax, py = y + 0.5 - ay;
    const t = length2 ? Math.max(0, Math.min(1, (px * dx + py * dy) / length2)) : 0;
    return (px - t * dx) ** 2 + (py - t * dy) ** 2 <= radius2;
  };
  const reach = Math.ceil(radius);
  const left = Math.max(0, Math.min(from.x, to.x) - reach), right = Math.min(width, Math.max(from.x, to.x) + reach + 1);
  const top = Math.max(0, Math.min(from.y, to.y) - reach), bottom = Math.min(height, Math.max(from.y, to.y) + reach + 1);
  for (let y = top; y < bottom; y++) {
    let x = left;
    while (x < right && !near(x, y)) x++;
    const start = x;
    while (x < right && near(x, y)) x++; // a capsule's rows have no gaps
    if (x > start) spans.push(y * width + start, y * width + x);
  }
  return spans;
}

/** Pixels whose centre lies inside a polygon (even-odd rule). points: corners in pixels. */
export function polygon(points, width, height) {
  const spans = [];
  const ys = points.map((point) => point.y);
  const top = Math.max(0, Math.floor(Math.min(...ys))), bottom = Math.min(height, Math.ceil(Math.max(...ys)));
  for (let y = top; y < bottom; y++) {
    const xs = crossings(points, y + 0.5);
    for (let k = 0; k + 1 < xs.length; k += 2) {
      const start = Math.max(0, Math.ceil(xs[k] - 0.5)), end = Math.min(width, Math.ceil(xs[k + 1] - 0.5));
      if (end > start) spans.push(y * width + start, y * width + end);
    }
  }
  return spans;
}

function crossings(points, y) {
  const xs = [];
  for (let k = 0; k < points.length; k++) {
    const p = points[k], q = points[(k + 1) % points.length];
    if (p.y <= y !== q.y <= y) xs.push(p.x + ((y - p.y) * (q.x - p.x)) / (q.y - p.y));
  }
  return xs.sort((a, b) => a - b);
}

/** The 4-connected pixels around seed for which same(index) holds. */
export function flood(seed, same, width, height) {
  const seen = new Uint8Array(width * height);
  const spans = [];
  const stack = [seed];
  while (stack.length) {
    const index = stack.pop();
    if (seen[index] || !same(index)) continue;
    const row = Math.floor(index / width) * width;
    let start = index, end = index + 1;
    while (start > row && !seen[start - 1] && same(start - 1)) start--;
    while (end < row + width && !seen[end] && same(end)) end++;
    seen.fill(1, start, end);
    spans.push(start, end);
    for (const shift of [-width, width]) {
      if (start + shift < 0 || start + shift >= seen.length) continue;
      let open = false;
      for (let i = start + shift; i < end + shift; i++) {
        const fits = !seen[i] && same(i);
        if (fits && !open) stack.push(i);
        open = fits;
      }
    }
  }
  return spans;
}

/** Superpixels: which pixels each patch has. */
export class Patches {
  constructor(numbers) {
    this.numbers = numbers;
    let count = 0;
    for (const number of numbers) if (number >= count) count = number + 1;
    this.count = count;
    this.starts = new Uint32Array(count + 1);
    for (const number of numbers) this.starts[number + 1]++;
    for (let k = 0; k < count; k++) this.starts[k + 1] += this.starts[k];
    const next = this.starts.slice();
    this.pixels = new Uint32Array(numbers.length);
    for (let i = 0; i < numbers.length; i++) this.pixels[next[numbers[i]]++] = i;
  }

  at(index) { return this.numbers[index]; }
  members(number) { return this.pixels.subarray(this.starts[number], this.starts[number + 1]); }

  spans(number) {
    const members = this.members(number), spans = [];
    for (let k = 0; k < members.length; ) {
      const start = k++;
      while (k < members.length && members[k] === members[k - 1] + 1) k++;
      spans.push(members[start], members[k - 1] + 1);
    }
    return spans;
  }
}
