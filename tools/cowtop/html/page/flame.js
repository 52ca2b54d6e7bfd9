// The flame graph of copies: a function is as wide as the memory that it, and what it called,
// copied.  Drawn on a canvas, since there may be 50,000 of them.
class FlameGraph {
  static ROW = 19;

  constructor(report, canvas, path, found) {
    this.stacks = report.stacks;
    this.canvas = canvas;
    this.path = path;
    this.found = found;
    this.root = 0;
    this.totals = this.stacks.totals(null);
    page.on("choose", () => {
      this.root = 0;
      this.totals = this.stacks.totals(page.chosen);
      this.draw();
    });
    for (const event of ["search", "theme", "resize"]) page.on(event, () => this.draw());
    hover(canvas, (event, x, y) => this.point(event, x, y));
  }

  nameOf(node) {
    return node === 0 ? (page.chosen ? nameOf(page.chosen) : "all processes") : this.stacks.names[this.stacks.name[node]];
  }

  // The nodes that are wide enough to be seen, with their places.
  layout(width) {
    const whole = this.totals[this.root];
    const boxes = [];
    const pending = whole > 0 ? [{ node: this.root, x: 0, depth: 0 }] : [];
    while (pending.length > 0) {
      const { node, x, depth } = pending.pop();
      const size = (this.totals[node] / whole) * width;
      if (size < 0.4) continue;
      boxes.push({ node, begin: x, depth, size });
      let left = x;
      const below = (this.stacks.children[node] || []).filter((child) => this.totals[child] > 0);
      for (const child of below.sort((a, b) => this.totals[b] - this.totals[a])) {
        pending.push({ node: child, x: left, depth: depth + 1 });
        left += (this.totals[child] / whole) * width;
      }
    }
    return boxes;
  }

  draw() {
    this.boxes = this.layout(this.canvas.clientWidth);
    const rows = this.boxes.reduce((most, box) => Math.max(most, box.depth + 1), 1);
    const { context } = fit(this.canvas, rows * FlameGraph.ROW);
    const light = color("--flame-light");
    const text = color("--flame-text");
    const mark = color("--shared");
    const back = color("--panel");
    context.textBaseline = "middle";
    context.font = context.font.replace("12px", "11.5px");
    const { hits } = this.stacks;
    this.byRow = Array.from({ length: rows }, () => []);
    for (const box of this.boxes) {
      this.byRow[box.depth].push(box);
      const y = box.depth * FlameGraph.ROW;
      const isHit = hits && hits[box.node] === 1;
      context.globalAlpha = hits && !isHit ? 0.35 : 1;
      context.fillStyle = isHit ? mark : this.fill(box.node, light);
      context.fillRect(box.begin, y, Math.max(box.size - (box.size > 3 ? 1 : 0), 0.4), FlameGraph.ROW - 1);
      if (box.size < 26) continue;
      context.fillStyle = isHit ? back : text;
      context.fillText(clipped(context, this.nameOf(box.node), box.size - 9), box.begin + 4, y + FlameGraph.ROW / 2);
    }
    context.globalAlpha = 1;
    this.drawPath();
    this.countHits();
  }

  // By the function's name, from red to yellow, so that the same has the same colour everywhere.
  fill(node, light) {
    if (node === 0) return `hsl(35 12% ${light})`;
    const name = this.nameOf(node);
    if (name === "[smaller]" || name === "[not sampled]") return `hsl(35 8% ${light})`;
    const hue = /:\d+\)$/.test(name) ? 190 : 12; // Python's are blue
    let hash = 0;
    for (let i = 0; i < name.length; ++i) hash = (hash * 31 + name.charCodeAt(i)) % 9973;
    return `hsl(${hue + (hash % 36)} ${70 + (hash % 20)}% ${light})`;
  }

  drawPath() {
    const steps = [];
    for (let node = this.root; ; node = this.stacks.parent[node]) {
      steps.unshift(node);
      if (node === 0) break;
    }
    this.path.replaceChildren();
    if (steps.length === 1) {
      this.path.append(page.chosen ? `Of ${nameOf(page.chosen)} alone. ` : "", "Click a function to look closer.");
      return;
    }
    for (const node of steps.slice(0, -1)) {
      this.path.append(element("button", { type: "button", onclick: () => this.zoom(node) }, this.nameOf(node)), " \u203A ");
    }
    this.path.append(this.nameOf(this.root));
  }

  countHits() {
    const { hits, parent } = this.stacks;
    if (!hits) {
      this.found("");
      return;
    }
    let pages = 0;
    for (let i = 1; i < hits.length; ++i) {
      if (hits[i] === 1 && !hits[parent[i]]) pages += this.totals[i];
    }
    this.found(this.totals[0] > 0 ? `${percentText(pages / this.totals[0])} of the copies are below what is searched` : "");
  }

  zoom(node) {
    this.root = node;
    hideTooltip();
    this.draw();
  }

  point(event, x, y) {
    const row = this.byRow[Math.floor(y / FlameGraph.ROW)] || [];
    const box = row.find((each) => x >= each.begin && x < each.begin + each.size);
    if (!box) return undefined;
    const pages = this.totals[box.node];
    showTooltip(event, this.nameOf(box.node), `${pagesText(pages)}, ${percentText(pages / this.totals[0])} of all`, `${countText(pages)} pages`);
    return () => this.zoom(box.node === this.root ? this.stacks.parent[box.node] : box.node);
  }
}

function showFlame(report) {
  const panel = section("flame", "Flame graph of copies");
  const canvas = element("canvas", { role: "img", "aria-label": "Copied memory by stack" });
  const path = element("div", { class: "path" });
  const graph = new FlameGraph(report, canvas, path, panel.count);
  panel.append(path, element("div", { class: "scroll" }, canvas));
  panel.dataset.pages = graph.totals[0];
  if (!report.run.sampling) {
    panel.append(element("p", { class: "hint" }, "Stacks were not sampled."));
  } else if (graph.totals[0] === 0) {
    panel.append(element("p", { class: "empty" }, "Nothing was copied."));
  }
  graph.draw();
}
