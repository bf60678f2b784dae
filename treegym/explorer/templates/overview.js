// The bird's-eye view: every node of the root as a rectangle, one row a token. Drawn once into a bitmap; the path of the
// selected node is drawn over it.
class Overview {
  constructor(canvas, tip, describe, select) {
    Object.assign(this, {canvas, tip, describe, select, block: null, bitmap: null, chosen: 0});
    new ResizeObserver(() => this.rebuild()).observe(canvas);
    canvas.addEventListener("pointermove", (event) => this.hover(event));
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
    canvas.addEventListener("click", (event) => { const node = this.at(event); if (node >= 0) select(node); });
  }

  show(block) {
    this.block = block;
    this.depth = block.depth.reduce((a, b) => Math.max(a, b), 0) + 1;
    this.levels = Array.from({length: this.depth}, () => []);
    for (let i = 0; i < block.size; i++) this.levels[block.depth[i]].push(i);
    this.rebuild();
  }

  rebuild() {
    const {canvas, block} = this;
    const box = canvas.getBoundingClientRect();
    if (!block || box.width === 0) return;
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    const bitmap = document.createElement("canvas");
    bitmap.width = canvas.width;
    bitmap.height = canvas.height;
    const pen = bitmap.getContext("2d");
    const css = getComputedStyle(document.documentElement);
    const colour = (name) => css.getPropertyValue(name).trim();
    const shades = {good: colour("--good"), bad: colour("--bad"), dim: colour("--dim"), accent: colour("--accent")};
    const row = canvas.height / this.depth;
    const {left, width} = block.spread;
    for (let i = 0; i < block.size; i++) {
      const state = block.state[i];
      const end = state & STATE.end;
      pen.fillStyle = end ? (state & STATE.correct ? shades.good : shades.bad) : state & STATE.reaches ? shades.accent : shades.dim;
      pen.globalAlpha = end ? 0.95 : state & STATE.reaches ? 0.5 : 0.7;
      const gap = Math.min(1, 0.12 * width[i] * canvas.width);
      pen.fillRect(left[i] * canvas.width, block.depth[i] * row, Math.max(width[i] * canvas.width - gap, 0.35), row - 1);
    }
    this.bitmap = bitmap;
    this.ink = colour("--ink");
    this.paint();
  }

  paint() {
    if (!this.bitmap) return;
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    pen.drawImage(this.bitmap, 0, 0);
    const {left, width} = this.block.spread;
    const row = this.canvas.height / this.depth;
    pen.strokeStyle = this.ink;
    pen.lineWidth = Math.max(1.5, devicePixelRatio || 1);
    for (let i = this.chosen; i >= 0; i = this.block.parent[i]) {
      pen.strokeRect(left[i] * this.canvas.width, this.block.depth[i] * row + 1, Math.max(width[i] * this.canvas.width, 2), row - 3);
    }
  }

  choose(node) { this.chosen = node; this.paint(); }

  at(event) {
    if (!this.block) return -1;
    const box = this.canvas.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width;
    const level = this.levels[Math.floor(((event.clientY - box.top) / box.height) * this.depth)];
    if (!level || !level.length) return -1;
    const {left, width} = this.block.spread;
    let low = 0, high = level.length - 1; // nodes of a level stand from left to right
    while (low < high) { const middle = (low + high + 1) >> 1; if (left[level[middle]] <= x) low = middle; else high = middle - 1; }
    const node = level[low];
    return x >= left[node] && x < left[node] + Math.max(width[node], 2 / box.width) ? node : -1;
  }

  hover(event) {
    const node = this.at(event);
    this.tip.hidden = node < 0;
    if (node < 0) return;
    this.tip.textContent = this.describe(node);
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    this.tip.style.left = `${Math.min(x + 12, Math.max(0, box.width - this.tip.offsetWidth))}px`;
    this.tip.style.top = `${event.clientY - box.top + 14}px`;
  }
}
