// Where data comes from: the local server, or scripts inside this file. One root's nodes are columns of typed arrays.
const STATE = {end: 1, correct: 2, reaches: 4, best: 8, shortest: 16, likely: 32, expanded: 64, cut: 128};

class Store {
  constructor() {
    this.inline = document.getElementById("meta") !== null;
    this.blocks = new Map();
  }

  async meta() {
    if (this.inline) return JSON.parse(document.getElementById("meta").textContent);
    return (await this.get("meta")).json();
  }

  async get(path) {
    const answer = await fetch(path);
    if (!answer.ok) throw new Error(`the explorer's server answered ${answer.status} for ${path}`);
    return answer;
  }

  async block(root) {
    if (!this.blocks.has(root)) {
      if (this.blocks.size > 8) this.blocks.delete(this.blocks.keys().next().value);
      this.blocks.set(root, unpack(this.inline ? await carried(root) : await (await this.get(`root/${root}`)).arrayBuffer()));
    }
    return this.blocks.get(root);
  }
}

async function carried(root) {
  const text = document.getElementById(`root-${root}`).textContent;
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const types = {i: Int32Array, u: Uint32Array, f: Float32Array};
  const block = {...header, size: header.columns.node.shape[0]};
  for (const [name, column] of Object.entries(header.columns)) {
    const count = column.shape.reduce((a, b) => a * b, 1);
    block[name] = new types[column.type](buffer, 4 + length + column.offset, count);
  }
  block.spread = spread(block);
  return block;
}

// Each node's share of the width: ends are one unit wide, a node spans what is below it. Children come after parents.
function spread(block) {
  const {size, parent, first, count} = block;
  const width = new Float64Array(size);
  const left = new Float64Array(size);
  for (let i = size - 1; i >= 0; i--) {
    if (width[i] === 0) width[i] = 1;
    if (parent[i] >= 0) width[parent[i]] += width[i];
  }
  const total = width[0];
  for (let i = 0; i < size; i++) {
    let at = left[i];
    for (let k = 0; k < count[i]; k++) {
      const child = first[i] + k;
      left[child] = at;
      at += width[child];
    }
  }
  for (let i = 0; i < size; i++) { left[i] /= total; width[i] /= total; }
  return {left, width};
}
