// The process tree, and all that is known of the chosen process.

function sparkline(process) {
  const points = process.curve ? process.curve.copied : [];
  const most = points.length > 0 ? points[points.length - 1][1] : 0;
  if (points.length < 2 || most === 0) return "";
  const begin = points[0][0];
  const span = points[points.length - 1][0] - begin || 1;
  const path = points.map(([at, value], i) =>
    `${i === 0 ? "M" : "L"}${(((at - begin) / span) * 94 + 1).toFixed(1)} ${(20 - (value / most) * 18).toFixed(1)}`).join("");
  const line = document.getElementById("sparkline").content.cloneNode(true);
  line.querySelector("path").setAttribute("d", path);
  return line;
}

function processName(process, table) {
  const name = document.createDocumentFragment();
  if (table.isTree) {
    const indent = element("span");
    indent.style.paddingLeft = `${Math.min(process.depth, 12) * 1.1}em`;
    name.append(indent);
    const fold = (event) => {
      event.stopPropagation();
      table.toggle(process);
    };
    const isClosed = table.closed.has(process);
    name.append(process.children.length === 0
      ? element("span", { class: "twist" })
      : element("button", { type: "button", class: "twist", "aria-label": isClosed ? "Unfold" : "Fold", onclick: fold }, isClosed ? "\u25B8" : "\u25BE"));
  }
  const label = element("span", { title: process.not_measured }, marked(process.title || process.comm), " ", element("span", { class: "pid" }, marked(`${process.pid}${andMore(process)}`)));
  name.append(label);
  return name;
}

// "Still shared"
const titleOf = (figure) => figure.title[0] + figure.title.slice(1).toLowerCase();

function figureColumn(figure, mostCopied) {
  const value = (row) => valueOf(row, figure);
  const full = (row) => (figure.name === "copied_bytes" ? value(row) / mostCopied : figure.unit === "ratio" ? value(row) : null);
  const isMain = ["copied_bytes", "still_shared_ratio"].includes(figure.name);
  const show = (row) => element("span", {}, figureText(figure, value(row)),
    isMain && isKnown(value(row)) ? meter(full(row), figure.unit === "ratio" ? "shared" : "") : "");
  return { title: titleOf(figure), help: figure.meaning, number: true, level: isMain ? undefined : figure.usual ? 2 : 3, value, show };
}

function processColumns(report, mostCopied) {
  return [
    { title: "Process", main: true, value: (row) => (row.title || row.comm).toLowerCase(), show: processName },
    ...report.figures.map((figure) => figureColumn(figure, mostCopied)),
    { title: "Over its life", level: 2, help: "Copied memory from its start to its end", value: (row) => row.begin_s, show: sparkline },
    { title: "Why", level: 2, help: "What most of Copied was for", value: (row) => row.why ? row.why.name : null,
      show: (row) => row.why ? element("span", {}, marked(row.why.name), element("span", { class: "pid" }, ` ${percentText(row.why.of_all, 0)}`)) : UNKNOWN },
    { title: "Its tree", level: 3, number: true, help: "Copied by it and all its descendants", value: (row) => row.tree_copied_pages, show: (row) => pagesText(row.tree_copied_pages) },
    { title: "End", level: 3, value: endingText, show: (row) => marked(endingText(row)) },
  ];
}

function processDetail(process, { figures, counts }) {
  const facts = [
    ...figures.map((figure) => [titleOf(figure), figureText(figure, valueOf(process, figure)), figure.meaning]),
    ["Its memory, shared", process.memory ? bytesText(process.memory.shared_bytes) : UNKNOWN],
    ["Its memory, its own", process.memory ? bytesText(process.memory.private_bytes) : UNKNOWN],
    ["Both as of", process.memory ? `${secondsText(process.memory.age_s)} before ${isKnown(process.end_ns) ? "its end" : "this report"}${process.memory.stale ? ": stale, it has copied more since" : ""}` : UNKNOWN],
    ["Its parent copied meanwhile", isKnown(process.parent_copied_pages) ? pagesText(process.parent_copied_pages) : UNKNOWN],
    ["Lived", `${secondsText(process.end_s - process.begin_s)}, ${endingText(process)}`],
    ["Its tree", `${pagesText(process.tree_copied_pages)} by ${plural(process.tree_processes, "process", "processes")}`],
    ["Executed", process.execs === 0 ? "nothing" : plural(process.execs, "program")],
    ...counts.map(({ name, meaning }) => [name.replaceAll("_", " "), countText(process[name]), meaning]),
  ];
  const list = element("dl", {}, ...facts.map(([name, value, title]) => element("div", { title }, element("dt", {}, name), element("dd", {}, value))));
  const close = element("button", { type: "button", class: "chip", onclick: () => page.choose(null) }, "Close");
  const detail = element("div", { class: "detail" }, element("div", { class: "head" }, element("h2", {}, nameOf(process)), element("span", { class: "grow" }), close), list);
  if (process.not_measured) detail.append(element("p", { class: "hint" }, `Not measured: ${process.not_measured}`));
  if (process.unreadable) detail.append(element("p", { class: "hint" }, "Its memory could not be read, which takes its user or CAP_SYS_PTRACE."));
  const named = (title, rows) => {
    if (rows.length > 0) detail.append(element("h3", {}, title), element("div", { class: "facts" }, ...rows.map((text) => element("span", {}, text))));
  };
  named("Why", process.causes.map((each) => `${each.name} ${percentText(each.of_all, 0)}`));
  named("Mappings (estimated)", (process.mappings || []).slice(0, 8).map((each) => `${each.name} ${pagesText(each.estimated_copies)}`));
  named("Arenas", process.arenas.map((each) => `${each.name} ${pagesText(each.copied_pages)} of ${bytesText(each.bytes)}`));
  named("Objects", (process.objects || []).slice(0, 8).map((each) => `${objectText(each)} ${pagesText(each.copied_pages)}`));
  return detail;
}

function showProcesses(report) {
  const shape = choice("Order", ["Tree", "Flat"], 0, (i) => table.setTree(i === 0));
  const panel = section("processes", "Processes", shape);
  if (report.processes.length === 0) {
    panel.append(element("p", { class: "empty" }, "No process was recorded."));
    return;
  }
  const most = report.processes.reduce((value, process) => Math.max(value, process.copied_bytes || 0), 1);
  const columns = processColumns(report, most);
  const table = new Table({
    columns, rows: report.processes, sort: columns.findIndex((column) => column.title === "Copied"), tree: true, fixed: true,
    isFound: (process) => report.isFound(process),
    pick: (process) => page.choose(process), isChosen: (process) => process === page.chosen,
    found: (shown, all) => panel.count(page.query === "" ? countText(all) : `${countText(shown)} of ${countText(all)}`),
  });
  const detail = element("div");
  panel.append(table.element, element("p", { class: "hint" }, "Choose a process for its details; the charts below then show it alone. Code, stacks and types below are of all copies, also those after an exec and while a program ends, which COPIED leaves out."), detail);
  page.on("choose", () => detail.replaceChildren(...(page.chosen ? [processDetail(page.chosen, report)] : [])));
}
