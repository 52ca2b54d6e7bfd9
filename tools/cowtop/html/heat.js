// Where the copies are: a row for each process, a column for each range of addresses, mapping or
// object; the colour is how much of it was copied.

const HEAT_ROW = 18;

// A colour of the ramp for 0 to 1.
function heatColor(ramp, value) {
  const at = Math.min(0.9999, Math.max(0, value)) * (ramp.length - 1);
  const low = ramp[Math.floor(at)];
  const high = ramp[Math.floor(at) + 1];
  const part = at - Math.floor(at);
  return `rgb(${low.map((each, i) => Math.round(each + (high[i] - each) * part)).join(" ")})`;
}

const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const hexText = (address) => `0x${address.toString(16)}`;

// Each kind of columns: cells of a process, {begin, end, name, title, pages, ratio}, `begin` and
// `end` in units of its own.
const HEAT_KINDS = [
  {
    name: "Addresses", empty: "Ranges of addresses were not sampled: cowtop record --sites does.",
    cells: (process) => (process.ranges || []).map((range) => ({
      begin: range.begin, end: range.end, name: range.mapping, pages: range.estimated_copies,
      title: `${range.mapping} ${hexText(range.begin)}\u2013${hexText(range.end)}`,
      size: (range.end - range.begin) / PAGE_BYTES,
    })),
  },
  {
    name: "Mappings", empty: "Mappings were not sampled: cowtop record --sites does.",
    cells: (process) => (process.mappings || []).map((each) => ({ name: each.name, pages: each.estimated_copies, title: each.name })),
  },
  {
    name: "Objects", empty: "No published object was copied.",
    cells: (process) => (process.objects || []).map((each) => ({
      name: `${each.arena}/${objectText(each)}`, pages: each.copied_pages, title: `${objectText(each)} in arena ${each.arena}` })),
  },
];

class HeatMap {
  static STEP = 40;
  static MOST = 360; // a canvas may be no higher on a phone

  constructor(report, canvas, parts) {
    this.report = report;
    this.canvas = canvas;
    this.parts = parts;
    this.kind = HEAT_KINDS[0];
    this.most = HeatMap.STEP;
    this.prepare();
    for (const event of ["search", "theme", "choose", "resize"]) page.on(event, () => this.draw());
    hover(canvas, (event, x, y) => this.point(event, x, y));
  }

  // Columns: the parts of all cells that there are, by address, without what lies between; or the
  // names, the most copied first.
  prepare() {
    this.rows = this.report.processes
      .map((process) => ({ process, cells: this.kind.cells(process) }))
      .filter((row) => row.cells.some((cell) => cell.pages > 0))
      .sort((a, b) => b.process.copied_pages - a.process.copied_pages);
    const cells = this.rows.flatMap((row) => row.cells);
    if (this.kind === HEAT_KINDS[0]) {
      this.columns = [];
      for (const { begin, end, name } of cells.sort((a, b) => a.begin - b.begin)) {
        const last = this.columns[this.columns.length - 1];
        if (last && begin <= last.end && last.name === name) last.end = Math.max(last.end, end);
        else this.columns.push({ begin, end, name });
      }
      for (const row of this.rows) for (const cell of row.cells) cell.heat = cell.pages / cell.size;
    } else {
      const pages = new Map();
      for (const cell of cells) pages.set(cell.name, (pages.get(cell.name) || 0) + cell.pages);
      const names = [...pages].sort((a, b) => b[1] - a[1]).slice(0, 24).map(([name]) => name);
      this.columns = names.map((name, i) => ({ begin: i, end: i + 1, name }));
      const at = new Map(names.map((name, i) => [name, i]));
      const hottest = cells.reduce((most, cell) => Math.max(most, cell.pages), 1);
      for (const row of this.rows) {
        row.cells = row.cells.filter((cell) => at.has(cell.name));
        for (const cell of row.cells) {
          cell.begin = at.get(cell.name);
          cell.end = cell.begin + 1;
          cell.heat = cell.pages / hottest;
        }
      }
    }
    let offset = 0;
    for (const column of this.columns) {
      column.offset = offset;
      offset += column.end - column.begin;
    }
    this.span = offset || 1;
  }

  show(kind) {
    this.kind = kind;
    this.most = HeatMap.STEP;
    this.prepare();
    this.draw();
  }

  draw() {
    const found = this.rows.filter((row) =>
      (page.query === "" || this.report.isFound(row.process)) && (!page.chosen || row.process === page.chosen));
    this.shown = found.slice(0, this.most);
    const { more, legend, empty } = this.parts;
    more.hidden = found.length <= this.most;
    const others = countText(found.length - this.most);
    more.disabled = this.most >= HeatMap.MOST;
    more.textContent = more.disabled ? `${others} more, which copied less: search for them` : `Show more (${others} left)`;
    const isEmpty = this.rows.length === 0;
    empty.hidden = found.length > 0;
    empty.textContent = isEmpty ? this.kind.empty : "Nothing is found.";
    legend.hidden = isEmpty;
    legend.lastChild.textContent = this.kind === HEAT_KINDS[0] ? "all of its pages copied" : "the most copied";
    this.canvas.hidden = found.length === 0;
    if (found.length === 0) return;

    const top = 22;
    const { context, width } = fit(this.canvas, top + this.shown.length * HEAT_ROW);
    const left = width < 500 ? 84 : 150;
    const gap = this.columns.length > 60 ? 1 : 3;
    const room = width - left - gap * (this.columns.length - 1);
    const scale = Math.max(room, 40) / this.span;
    const x = (column, at) => left + (column.offset + at - column.begin) * scale + this.columns.indexOf(column) * gap;
    this.places = this.columns.map((column, i) => ({ column, begin: left + column.offset * scale + i * gap, size: (column.end - column.begin) * scale }));
    const ramp = ["--heat-0", "--heat-1", "--heat-2", "--heat-3"].map((name) => rgb(color(name)));

    context.textBaseline = "middle";
    context.fillStyle = color("--muted");
    // One heading for neighbours of one mapping.
    for (let i = 0; i < this.places.length;) {
      let j = i;
      while (j + 1 < this.places.length && this.places[j + 1].column.name === this.places[i].column.name) ++j;
      const begin = this.places[i].begin;
      const end = this.places[j].begin + this.places[j].size;
      const short = this.places[i].column.name.split("/").pop();
      context.fillText(clipped(context, short, end - begin - 4), begin + 2, 9);
      context.fillRect(begin, 17, Math.max(end - begin, 1), 1.5);
      i = j + 1;
    }
    this.boxes = this.shown.map((row, i) => {
      const y = top + i * HEAT_ROW;
      context.fillStyle = row.process === page.chosen ? color("--copied") : color("--text");
      context.fillText(clipped(context, nameOf(row.process), left - 8), 0, y + HEAT_ROW / 2);
      context.fillStyle = color("--sunk");
      for (const place of this.places) context.fillRect(place.begin, y, Math.max(place.size, 1), HEAT_ROW - 2);
      const boxes = row.cells.map((cell) => {
        const place = this.placeOf(cell);
        const begin = place.begin + (cell.begin - place.column.begin) * scale;
        return { cell, begin, size: Math.max((cell.end - cell.begin) * scale, 1.5) };
      });
      for (const { cell, begin, size } of boxes.sort((a, b) => a.cell.heat - b.cell.heat)) {
        context.fillStyle = heatColor(ramp, cell.heat);
        context.fillRect(begin, y, size, HEAT_ROW - 2);
      }
      // Without any, its name.
      if (boxes.length === 0) boxes.push({ begin: 0, size: left - 8 });
      for (const box of boxes) Object.assign(box, { row, y });
      return boxes;
    });
  }

  step(key, box) {
    if (!box) return this.boxes[0] && nearestTo({ begin: 0, size: 0 }, this.boxes[0]);
    const i = this.shown.indexOf(box.row);
    if (key === "ArrowUp" || key === "ArrowDown") {
      const other = this.boxes[key === "ArrowUp" ? i - 1 : i + 1];
      return other && nearestTo(box, other);
    }
    return stepIn([...this.boxes[i]].sort((a, b) => a.begin - b.begin), box, key, "ArrowLeft", "ArrowRight");
  }

  boxOf({ begin, size, y }) {
    return { x: begin, y, width: size, height: HEAT_ROW - 2 };
  }

  placeOf(cell) {
    let low = 0;
    let high = this.places.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.places[middle].column.begin <= cell.begin) low = middle;
      else high = middle - 1;
    }
    // Mappings of different processes may overlap.
    while (low > 0 && this.places[low].column.name !== cell.name && this.places[low - 1].column.end >= cell.end) --low;
    return this.places[low];
  }

  point(event, x, y) {
    const i = Math.floor((y - 22) / HEAT_ROW);
    const row = this.shown[i];
    if (!row) return undefined;
    const box = this.boxes[i].filter((each) => x >= each.begin && x < each.begin + each.size).pop();
    return this.tell(event, box || { row });
  }

  tell(event, { row, cell }) {
    if (cell) {
      const part = cell.size ? `, ${percentText(cell.pages / cell.size, 0)} of its pages` : "";
      showTooltip(event, nameOf(row.process), cell.title, `${pagesText(cell.pages)} copied${part}`);
    } else {
      showTooltip(event, nameOf(row.process), `${pagesText(row.process.copied_pages)} copied`);
    }
    return () => page.choose(row.process);
  }
}

function showHeat(report) {
  const canvas = element("canvas", { role: "img", "aria-label": "Copies by process and place" });
  const legend = element("div", { class: "legend" }, "nothing", element("span", { class: "ramp" }), element("span"));
  const empty = element("p", { class: "empty" });
  const more = element("button", { type: "button", class: "more", onclick: () => {
    map.most = Math.min(map.most + 4 * HeatMap.STEP, HeatMap.MOST);
    map.draw();
  } });
  const kinds = choice("Columns", HEAT_KINDS.map((kind) => kind.name), 0, (i) => map.show(HEAT_KINDS[i]));
  const panel = section("heat", "Heat map of the memory", kinds);
  const map = new HeatMap(report, canvas, { legend, empty, more });
  const frame = keyed(canvas, (key, box) => map.step(key, box), (box) => map.boxOf(box), (event, box) => map.tell(event, box));
  panel.append(legend, frame, empty, more);
  map.draw();
}
