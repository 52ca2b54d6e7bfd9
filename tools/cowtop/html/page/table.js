// A table that is sorted by its headings and filtered by the search.
//
// columns: {title, help, value(row), show(row), number, level, main}: what to sort by (text or a
// number; null comes last) and what to show (text or a node); of level 2 and 3 only on wider
// screens.
// options: {columns, rows, sort: column, ascending, isFound(row): by the search, tree: rows have
// `parent`, `children`, `depth`, pick(row), isChosen(row), fixed: rows of one line, any number of
// them, of which only those in sight are drawn, found(shown, all)}
class Table {
  static ROW = 32; // of style .fixed
  static STEP = 12;

  constructor(options) {
    this.options = options;
    this.sorted = options.columns[options.sort || 0];
    this.ascending = options.ascending || false;
    this.isTree = Boolean(options.tree);
    this.closed = new Set();
    this.most = Table.STEP;
    this.body = element("tbody");
    this.headings = options.columns.map((column) => this.heading(column));
    const table = element("table", {}, element("thead", {}, element("tr", {}, ...this.headings)), this.body);
    this.frame = element("div", { class: options.fixed ? "table fixed" : "table", tabindex: options.fixed ? "0" : null }, table);
    this.more = element("button", { type: "button", class: "more", onclick: () => this.showMore() });
    this.element = element("div", {}, this.frame, this.more);
    this.isPrinting = false;
    if (options.fixed) {
      this.frame.addEventListener("scroll", () => this.draw(), { passive: true });
      window.addEventListener("beforeprint", () => this.print(true));
      window.addEventListener("afterprint", () => this.print(false));
    }
    page.on("search", () => {
      this.frame.scrollTop = 0;
      this.update();
    });
    if (options.isChosen) page.on("choose", () => this.draw());
    this.update();
  }

  heading(column) {
    const click = () => {
      this.ascending = this.sorted === column ? !this.ascending : !column.number;
      this.sorted = column;
      this.update();
    };
    return element("th", { class: this.style(column), title: column.help, scope: "col" },
      element("button", { type: "button", onclick: click }, column.title));
  }

  style(column) {
    return [column.number ? "number" : "", column.main ? "main" : "", column.level ? `p${column.level}` : ""].join(" ").trim();
  }

  compare(a, b) {
    const x = this.sorted.value(a);
    const y = this.sorted.value(b);
    if (!isKnown(x) || !isKnown(y)) return isKnown(y) - isKnown(x);
    const order = x < y ? -1 : x > y ? 1 : 0;
    return this.ascending ? order : -order;
  }

  // What is to be shown, in order: rows that are found, in a tree with those above them.
  update() {
    const { rows, isFound, found } = this.options;
    const hits = page.query === "" ? rows : rows.filter(isFound);
    this.hits = new Set(hits);
    if (this.isTree) {
      const wanted = new Set();
      for (const hit of hits) {
        for (let row = hit; row && !wanted.has(row); row = row.parent) wanted.add(row);
      }
      this.rows = [];
      const pending = rows.filter((row) => !row.parent && wanted.has(row)).sort((a, b) => this.compare(b, a));
      while (pending.length > 0) {
        const row = pending.pop();
        this.rows.push(row);
        if (this.closed.has(row) && page.query === "") continue;
        pending.push(...row.children.filter((child) => wanted.has(child)).sort((a, b) => this.compare(b, a)));
      }
    } else {
      this.rows = [...hits].sort((a, b) => this.compare(a, b));
    }
    this.options.columns.forEach((column, i) => {
      const order = this.ascending ? "ascending" : "descending";
      this.headings[i].setAttribute("aria-sort", column === this.sorted ? order : "none");
    });
    if (found) found(hits.length, rows.length);
    this.frame.classList.toggle("long", Boolean(this.options.fixed) && this.rows.length > 16);
    this.draw();
  }

  setTree(isTree) {
    this.isTree = isTree;
    this.update();
  }

  toggle(row) {
    if (!this.closed.delete(row)) this.closed.add(row);
    this.update();
  }

  print(isPrinting) {
    this.isPrinting = isPrinting;
    this.draw();
  }

  showMore() {
    this.most += 100;
    this.draw();
  }

  draw() {
    const all = this.rows.length;
    if (!this.options.fixed) {
      this.body.replaceChildren(...this.rows.slice(0, this.most).map((row) => this.row(row)));
      this.more.hidden = all <= this.most;
      this.more.textContent = `Show more (${countText(all - this.most)} left)`;
      return;
    }
    this.more.hidden = true;
    const most = 400; // on paper
    const margin = 12;
    const begin = this.isPrinting ? 0 : Math.max(0, Math.floor(this.frame.scrollTop / Table.ROW) - margin);
    const end = Math.min(all, this.isPrinting ? most : begin + Math.ceil((this.frame.clientHeight || 600) / Table.ROW) + 2 * margin);
    const space = (rows) => {
      const cell = element("td", { colspan: this.headings.length });
      cell.style.height = `${rows * Table.ROW}px`;
      return element("tr", { class: "space", "aria-hidden": "true" }, cell);
    };
    const drawn = this.rows.slice(begin, end).map((row) => this.row(row));
    if (begin > 0) drawn.unshift(space(begin));
    if (end < all && !this.isPrinting) drawn.push(space(all - end));
    this.body.replaceChildren(...drawn);
  }

  row(row) {
    const { columns, pick, isChosen } = this.options;
    const style = [pick ? "pick" : "", isChosen && isChosen(row) ? "chosen" : "", this.hits.has(row) ? "" : "aside"];
    const cells = columns.map((column) => element("td", { class: this.style(column) }, column.show(row, this)));
    return element("tr", { class: style.join(" ").trim(), onclick: pick ? () => pick(row) : null }, ...cells);
  }
}
