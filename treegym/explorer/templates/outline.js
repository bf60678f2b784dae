// Lists of any length: only the rows in sight are in the document.
const ROW = 24;

class VirtualList {
  constructor(element, draw) {
    this.element = element;
    this.draw = draw; // (row element, index) -> fills it
    this.count = 0;
    this.pad = document.createElement("div");
    this.pad.className = "pad";
    element.append(this.pad);
    this.pool = new Map(); // index -> element
    element.addEventListener("scroll", () => this.request(), {passive: true});
    new ResizeObserver(() => this.request()).observe(element);
  }

  resize(count) {
    this.count = count;
    this.pad.style.height = `${count * ROW}px`;
    this.redraw();
  }

  redraw() {
    for (const row of this.pool.values()) row.remove();
    this.pool.clear();
    this.render();
  }

  request() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.render(); });
  }

  render() {
    const first = Math.max(0, Math.floor(this.element.scrollTop / ROW) - 6);
    const last = Math.min(this.count, Math.ceil((this.element.scrollTop + this.element.clientHeight) / ROW) + 6);
    for (const [index, row] of this.pool) {
      if (index < first || index >= last) { row.remove(); this.pool.delete(index); }
    }
    const fresh = document.createDocumentFragment();
    for (let index = first; index < last; index++) {
      if (this.pool.has(index)) continue;
      const row = document.createElement("div");
      row.className = "row";
      row.style.top = `${index * ROW}px`;
      this.draw(row, index);
      this.pool.set(index, row);
      fresh.append(row);
    }
    this.element.append(fresh);
  }

  reveal(index) {
    const top = index * ROW, bottom = top + ROW, view = this.element;
    if (top < view.scrollTop) view.scrollTop = Math.max(0, top - 3 * ROW);
    else if (bottom > view.scrollTop + view.clientHeight) view.scrollTop = bottom - view.clientHeight + 3 * ROW;
    this.render();
  }
}

// The tree as an indented list of the nodes that are unfolded.
class Outline {
  constructor(element, draw, select) {
    this.open = new Uint8Array(0);
    this.rows = new Int32Array(0);
    this.place = new Int32Array(0); // node -> row, -1 while folded away
    this.select = select;
    this.list = new VirtualList(element, (row, index) => draw(row, this.rows[index], index, this.open[this.rows[index]]));
    element.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (!row) return;
      const node = Number(row.dataset.node);
      if (event.target.closest(".twist")) this.toggle(node);
      select(node);
    });
    element.addEventListener("dblclick", (event) => {
      const row = event.target.closest(".row");
      if (row && !event.target.closest(".twist")) this.toggle(Number(row.dataset.node));
    });
    element.addEventListener("keydown", (event) => this.key(event));
  }

  show(block) {
    this.block = block;
    this.open = new Uint8Array(block.size);
    for (let i = 0; i < block.size; i++) this.open[i] = (block.state[i] & STATE.best) !== 0; // the best path lies open
    this.open[0] = 1;
    this.chosen = 0;
    this.list.element.scrollTop = 0;
    this.refresh();
  }

  refresh() {
    const {block, open} = this;
    const rows = new Int32Array(block.size);
    const stack = [0];
    let size = 0;
    this.place = new Int32Array(block.size).fill(-1);
    while (stack.length) {
      const node = stack.pop();
      this.place[node] = size;
      rows[size++] = node;
      if (open[node]) for (let k = block.count[node] - 1; k >= 0; k--) stack.push(block.first[node] + k);
    }
    this.rows = rows.subarray(0, size);
    this.list.resize(size);
  }

  all(open) {
    this.open.fill(open ? 1 : 0);
    this.open[0] = 1;
    this.refresh();
  }

  toggle(node) {
    if (!this.block.count[node]) return;
    this.open[node] ^= 1;
    this.refresh();
  }

  choose(node) {
    let changed = false;
    for (let i = this.block.parent[node]; i >= 0; i = this.block.parent[i]) {
      if (!this.open[i]) { this.open[i] = 1; changed = true; }
    }
    this.chosen = node;
    if (changed) this.refresh(); else this.list.redraw();
    this.list.reveal(this.place[node]);
    this.list.element.setAttribute("aria-activedescendant", `node-${node}`);
  }

  key(event) {
    const {block, chosen, rows, place} = this;
    const row = place[chosen];
    const moves = {ArrowDown: row + 1, ArrowUp: row - 1, Home: 0, End: rows.length - 1, PageDown: row + 15, PageUp: row - 15};
    if (event.key in moves) this.select(rows[Math.max(0, Math.min(rows.length - 1, moves[event.key]))]);
    else if (event.key === "ArrowRight" && block.count[chosen]) {
      if (this.open[chosen]) this.select(block.first[chosen]); else { this.toggle(chosen); this.select(chosen); }
    } else if (event.key === "ArrowLeft") {
      if (this.open[chosen] && block.count[chosen] && chosen) { this.toggle(chosen); this.select(chosen); }
      else if (block.parent[chosen] >= 0) this.select(block.parent[chosen]);
    } else if (event.key === "Enter" || event.key === " ") { this.toggle(chosen); this.select(chosen); } else return;
    event.preventDefault();
  }
}
