// The page: prompts on the left, the chosen prompt's tree in the middle, the chosen node on the right. Everything that
// comes from a tree is put in as text, never as markup.
const byId = (id) => document.getElementById(id);
const store = new Store();
let meta, block, chosen = 0, step = -1, trail = [], onTrail = new Set(), shown = [];

const make = (tag, css, text) => {
  const element = document.createElement(tag);
  if (css) element.className = css;
  if (text !== undefined) element.textContent = text;
  return element;
};
const figure = (x, digits = 3) => (Number.isFinite(x) ? x.toFixed(digits) : "–");
const percent = (logp) => { const p = Math.exp(logp); return Number.isFinite(p) ? (p >= 0.0995 ? `${(100 * p).toFixed(0)} %` : `${(100 * p).toFixed(1)} %`) : "–"; };
const visible = (token) => (token === meta.eos ? "⟨end⟩" : meta.tokens[token].replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "⟨special⟩");
const pathOf = (node) => { const path = []; for (let i = node; i > 0; i = block.parent[i]) path.push(i); return path.reverse(); };
const textOf = (nodes) => nodes.map((i) => (block.token[i] === meta.eos ? "" : meta.tokens[block.token[i]])).join("");
const teacherLogp = (node, m) => block.teachers[node * meta.teachers.length + m];

const marks = (node) => {
  const state = block.state[node], said = [];
  if (state & STATE.end) said.push(state & STATE.correct ? ["good", "✓ correct"] : ["bad", "✗ wrong"]);
  else if (!(state & STATE.reaches) && (!node || block.state[block.parent[node]] & STATE.reaches)) said.push(["bad", "no correct end from here on"]); // the step that lost it
  if (node && state & STATE.best) said.push(["", "★ best"]);
  if (node && state & STATE.shortest) said.push(["", "shortest"]);
  if (node && state & STATE.likely) said.push(["", "greedy"]);
  if (state & STATE.cut) said.push(["bad", "not sent: too many nodes"]);
  return said;
};

const worth = (node) => (block.state[node] & STATE.end ? block.reward[node] : block.value[node]);
const extraColumns = () => {
  const columns = [["value", "best return from here; at an end, what it pays", (i) => figure(worth(i), 2)]];
  if (block.weight) columns.push(["weight", "learned weight", (i) => figure(block.weight[i], 2)]);
  if (block.visits) columns.push(["visits", "of the search from the parent", (i) => String(block.visits[i])], ["Q", "the search's value", (i) => figure(block.q[i], 2)]);
  return columns;
};

function drawNode(row, node, index, open) {
  const state = block.state[node];
  row.dataset.node = node;
  row.id = `node-${node}`;
  row.setAttribute("role", "treeitem");
  row.setAttribute("aria-level", block.depth[node] + 1);
  row.setAttribute("aria-selected", node === chosen);
  if (block.count[node]) row.setAttribute("aria-expanded", Boolean(open));
  if (node === chosen) row.classList.add("on");
  if (onTrail.has(node)) row.classList.add("trail");
  if (state & STATE.end) row.classList.add("end");
  if (!(state & STATE.reaches)) row.classList.add("lost");
  const name = make("span", "cell");
  name.style.paddingLeft = `${Math.min(block.depth[node], 40) * 13}px`;
  name.append(make("span", "twist", block.count[node] ? (open ? "▾" : "▸") : ""));
  name.append(make("span", node ? "tok" : "", node ? visible(block.token[node]) : meta.roots[block.root].prompt.slice(0, 60)));
  for (const [css, text] of marks(node)) name.append(make("span", `mark ${css}`, text));
  const voices = make("span", "cell voices");
  meta.teachers.forEach((teacher, m) => {
    if (block.proposers[node] & (2 << m)) { const dot = make("i"); dot.style.background = `var(--t${m % 8})`; dot.title = teacher; voices.append(dot); }
  });
  row.append(name, voices);
  const bar = make("span", "cell");
  if (node) { const frame = make("span", "bar"), fill = make("i"); frame.style.display = "block"; fill.style.width = `${Math.min(100, 100 * Math.exp(block.prior[node]))}%`; frame.append(fill); frame.title = `prior ${percent(block.prior[node])}`; bar.append(frame); }
  row.append(bar);
  for (const [, , value] of extraColumns()) row.append(make("span", "cell num", value(node)));
}

function drawHead() {
  const columns = extraColumns();
  document.documentElement.style.setProperty("--extra", columns.length);
  byId("head").replaceChildren(make("span", "", "token"), make("span", "", "teachers"), make("span", "", "prior"),
    ...columns.map(([name, about]) => { const cell = make("span", "", name); cell.title = about; return cell; }));
}

function drawPrompt(row, index) {
  const root = shown[index], {prompt, kind, split, solvable, walks} = meta.roots[root];
  row.dataset.root = root;
  row.setAttribute("role", "option");
  row.setAttribute("aria-selected", block !== undefined && block.root === root);
  if (block !== undefined && block.root === root) row.classList.add("on");
  row.append(make("small", solvable ? "good" : "bad", solvable ? "●" : "○"), document.createTextNode(prompt || `prompt ${root}`));
  row.title = `${prompt}\n${kind}, ${split}${solvable ? "" : ", no correct end can be reached"}${walks ? ", with walks" : ""}`;
}

const outline = new Outline(byId("outline"), drawNode, (node) => select(node));
const prompts = new VirtualList(byId("prompts"), drawPrompt);
const overview = new Overview(byId("overview"), byId("tip"), (node) => `${node ? textOf(pathOf(node)) || "⟨end⟩" : meta.roots[block.root].prompt}\n${marks(node).map(([, text]) => text).join(", ") || "a correct end can be reached"}`, (node) => select(node));

function select(node) {
  chosen = node;
  step = trail.indexOf(node);
  outline.choose(node);
  overview.choose(node);
  details();
  steps();
}

function details() {
  const parts = [make("h2", "", "Path")], path = pathOf(chosen), text = make("div", "path");
  text.append(make("span", "q", meta.roots[block.root].prompt), document.createTextNode(textOf(path.slice(0, -1))));
  if (path.length) text.append(make("mark", "", block.token[chosen] === meta.eos ? "⟨end⟩" : meta.tokens[block.token[chosen]]));
  parts.push(text);
  const facts = make("dl");
  const fact = (name, value) => { if (value !== "–") facts.append(make("dt", "", name), make("dd", "", value)); };
  fact("node", `${block.node[chosen]}`);
  fact("depth", `${block.depth[chosen]}`);
  if (chosen) { fact("prior", percent(block.prior[chosen])); fact("similarity", figure(block.similarity[chosen])); }
  fact("reward on entering", figure(block.reward[chosen]));
  if (!(block.state[chosen] & STATE.end)) fact("best return from here", figure(block.value[chosen]));
  fact("judge", figure(block.judge[chosen]));
  for (const [css, said] of marks(chosen)) { const dd = make("dd", css, said); facts.append(make("dt", "", ""), dd); }
  parts.push(facts);
  const probabilities = step >= 0 ? (walkNow()?.probabilities[step] ?? {}) : {};
  if (block.count[chosen]) {
    const sure = Object.keys(probabilities).length > 0;
    const extra = extraColumns();
    parts.push(make("h2", "", `Its ${block.count[chosen]} children`));
    const table = make("table"), head = table.createTHead().insertRow(), body = table.createTBody();
    const names = ["token", ...(sure ? ["agent"] : []), "prior", ...meta.teachers, "similar", "reward", ...extra.map(([name]) => name)];
    for (const name of names) { const cell = make("th", "", name); cell.scope = "col"; head.append(cell); }
    for (let k = 0; k < block.count[chosen]; k++) {
      const child = block.first[chosen] + k, row = body.insertRow(), link = row.insertCell();
      link.className = "link";
      link.append(make("span", "tok", visible(block.token[child])));
      if (block.state[child] & STATE.end) link.append(make("span", block.state[child] & STATE.correct ? "good" : "bad", block.state[child] & STATE.correct ? " ✓" : " ✗"));
      link.addEventListener("click", () => select(child));
      const cells = [...(sure ? [`${(100 * (probabilities[child] ?? 0)).toFixed(0)} %`] : []), percent(block.prior[child]), ...meta.teachers.map((_, m) => percent(teacherLogp(child, m))), figure(block.similarity[child], 2), figure(block.reward[child], 2), ...extra.map(([, , value]) => value(child))];
      for (const value of cells) row.insertCell().textContent = value;
    }
    const frame = make("div", "scroll");
    frame.append(table);
    parts.push(frame);
  }
  if (meta.search) parts.push(make("p", "note", `Visits and Q: ${meta.search[0]} with ${meta.search[1]} simulations from each node; it sees the reward.`));
  byId("details").replaceChildren(...parts);
}

// ---------------------------------------------------------------- walks

const follow = (bit) => { const nodes = [0]; for (let i = 0; ;) { let next = -1; for (let k = 0; k < block.count[i]; k++) if (block.state[block.first[i] + k] & bit) next = block.first[i] + k; if (next < 0) return nodes; nodes.push(i = next); } };
const walkNow = () => { const picked = byId("walk").value; return picked.startsWith("agent:") ? block.walks[Number(picked.slice(6))] : null; };

function listWalks() {
  const select = byId("walk");
  const options = [...block.walks.map((walk, i) => [`agent:${i}`, `walk of ${walk.name}`]), ["best", "best return"], ["shortest", "shortest correct"], ["likely", "greedy prior"]];
  select.replaceChildren(...options.map(([value, text]) => { const option = make("option", "", text); option.value = value; return option; }));
  takeWalk();
}

function takeWalk() {
  const picked = byId("walk").value;
  trail = picked.startsWith("agent:") ? walkNow().nodes : follow(STATE[picked]);
  onTrail = new Set(trail);
  step = trail.indexOf(chosen);
  outline.list.redraw();
  steps();
}

function steps() {
  byId("step").textContent = `${step < 0 ? "–" : step} of ${trail.length - 1}`;
  byId("back").disabled = step <= 0;
  byId("forth").disabled = step >= trail.length - 1;
}

async function load(root) {
  block = await store.block(root);
  const {prompt, answer, kind, split} = meta.roots[root];
  byId("prompt").replaceChildren(make("b", "", prompt || `prompt ${root}`), make("span", "", `${answer ? `answer ${answer}, ` : ""}${kind ? `${kind}, ` : ""}${split}, ${block.size.toLocaleString("en")} nodes`));
  if (block.picture) {
    const image = make("img");
    image.src = `data:image/png;base64,${block.picture}`;
    image.alt = "the picture of this prompt";
    byId("prompt").prepend(image);
  }
  if (block.left_out) byId("prompt").append(make("span", "bad", `cut: ${block.left_out} nodes have children that are not shown`));
  chosen = 0;
  outline.show(block);
  drawHead();
  overview.chosen = 0;
  overview.show(block);
  listWalks();
  prompts.redraw();
  details();
  document.documentElement.dataset.ready = String(root);
}

function filter() {
  const wanted = byId("filter").value.toLowerCase();
  const from = meta.carried ?? meta.roots.keys();
  const [onlySplit, onlyKind] = ["split", "kind"].map((id) => byId(id).value);
  shown = [...from].filter((i) => {
    const {prompt, kind, split} = meta.roots[i];
    return (!onlySplit || split === onlySplit) && (!onlyKind || kind === onlyKind) && `${prompt} ${kind} ${split}`.toLowerCase().includes(wanted);
  });
  prompts.resize(shown.length);
}

async function start() {
  meta = await store.meta();
  const left = meta.roots.length - (meta.carried ?? meta.roots).length + meta.roots_left_out;
  const listed = meta.roots.length + meta.roots_left_out;
  byId("facts").textContent = `${meta.nodes.toLocaleString("en")} nodes, ${listed.toLocaleString("en")} ${listed === 1 ? "prompt" : "prompts"}${left ? ` (${left.toLocaleString("en")} not in this file)` : ""}`;
  byId("teachers").replaceChildren(...meta.teachers.flatMap((name, m) => { const dot = make("i", "dot"); dot.style.background = `var(--t${m % 8})`; return [dot, document.createTextNode(name)]; }));
  for (const [id, all] of [["split", "all splits"], ["kind", "all kinds"]]) {
    const names = [...new Set(meta.roots.map((root) => root[id]).filter(Boolean))].sort();
    byId(id).replaceChildren(...["", ...names].map((name) => { const option = make("option", "", name || all); option.value = name; return option; }));
    byId(id).hidden = names.length < 2;
    byId(id).addEventListener("change", filter);
  }
  filter();
  byId("filter").addEventListener("input", filter);
  byId("prompts").addEventListener("click", (event) => { const row = event.target.closest(".row"); if (row) load(Number(row.dataset.root)); });
  byId("prompts").addEventListener("keydown", (event) => {
    const move = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (!move) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(shown.length - 1, shown.indexOf(block.root) + move));
    load(shown[next]).then(() => prompts.reveal(next));
  });
  byId("expand").addEventListener("click", () => { outline.all(true); outline.choose(chosen); });
  byId("collapse").addEventListener("click", () => { outline.all(false); select(0); });
  byId("walk").addEventListener("change", () => { takeWalk(); select(trail[0]); });
  byId("back").addEventListener("click", () => select(trail[step - 1]));
  byId("forth").addEventListener("click", () => select(trail[step + 1]));
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    overview.rebuild();
  });
  if (shown.length) await load(shown[0]);
}

start().catch((error) => { byId("prompt").textContent = `The tree could not be shown: ${error.message}`; });
