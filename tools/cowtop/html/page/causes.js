// Which code, why, and of what: the tables below the charts.

const PATTERN_COLORS = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#b5b35c", "#999999"];

const shareColumn = (title, ratio) => ({
  title, number: true, value: ratio, show: (row) => element("span", {}, percentText(ratio(row)), meter(ratio(row))),
});
const pagesColumn = (title, pages, level) => ({ title, number: true, level, value: pages, show: (row) => pagesText(pages(row)) });
const nameColumn = (title, name, level) => ({ title, main: !level, level, value: (row) => name(row).toLowerCase(), show: (row) => marked(name(row)) });

// A panel with a table, or nothing where there are no rows.  Sorted by what was copied, or else by
// the column that isSorted.
function tablePanel(id, title, rows, columns, textOfRow, hint = "") {
  if (rows.length === 0) return null;
  const panel = section(id, title);
  for (const row of rows) row.text = textOfRow(row).toLowerCase();
  const table = new Table({
    columns, rows, sort: columns.findIndex((column) => column.title === "Copied" || column.isSorted), isFound: (row) => matches(row.text),
    found: (shown, all) => panel.count(page.query === "" ? countText(all) : `${countText(shown)} of ${countText(all)}`),
  });
  if (hint) panel.append(element("p", { class: "hint" }, hint));
  panel.append(table.element);
  return panel;
}

function siteName(site) {
  const place = site.frames[site.frames.length - 1] || "??";
  const stack = element("ul", { class: "stack" }, ...site.stack.map((frame) => element("li", {}, marked(frame))));
  if (site.truncated) stack.append(element("li", {}, "callers that were not seen"));
  return element("details", {}, element("summary", {}, element("code", {}, marked(place))), stack);
}

const samplesColumn = { title: "Samples", number: true, level: 2, value: (row) => row.samples, show: (row) => countText(row.samples) };
const siteColumns = (pages) => [
  { title: "Place, and who called it", main: true, value: (site) => site.frames[site.frames.length - 1] || "", show: siteName },
  pagesColumn(pages, (site) => site.estimated_copies),
  samplesColumn,
];
const siteText = (site) => [...site.frames, ...site.stack].join("\n");

function showSites(report) {
  const all = report.run.samples || report.sites.reduce((sum, site) => sum + site.samples, 0) || 1;
  const { sampling } = report.run;
  tablePanel("sites", "Code", report.sites, siteColumns("Copied"), siteText,
  sampling ? `Estimated from ${plural(all, "sample")}, one in ${countText(sampling.period)} copies; ${countText(sampling.lost)} samples were lost.` : "");
}

function showWhy(report) {
  const rows = report.processes.flatMap((process) => (process.patterns || []).map((pattern) => ({ process, ...pattern })));
  if (rows.length === 0) return;
  const patterns = report.causes.filter((cause) => cause.bytes > 0);
  const others = PATTERN_COLORS.length - 1;
  const paint = (pattern) => PATTERN_COLORS[pattern === "unknown" ? others : (patterns.findIndex(({ name }) => name === pattern) + others) % others];
  const swatch = (pattern, style = {}) => {
    const mark = element("i", { title: pattern });
    mark.style.background = paint(pattern);
    Object.assign(mark.style, style);
    return mark;
  };
  const panel = tablePanel("why", "Why", rows, [
    { title: "Pattern", value: (row) => row.pattern, show: (row) => marked(row.pattern) },
    { title: "Process", value: (row) => nameOf(row.process), show: (row) => marked(nameOf(row.process)) },
    shareColumn("Of its samples", (row) => row.share),
    { ...samplesColumn, isSorted: true },
    { title: "Evidence", main: true, level: 2, value: (row) => row.evidence, show: (row) => marked(row.evidence) },
  ], (row) => [row.pattern, nameOf(row.process), row.evidence].join("\n"));
  const bar = element("div", { class: "split" }, ...patterns.map(({ name, bytes }) => swatch(name, { flexGrow: String(bytes) })));
  const key = element("div", { class: "key" }, ...patterns.map(({ name, of_all: ofAll }) => element("span", {}, swatch(name), `${name} ${percentText(ofAll, 0)}`)));
  panel.firstChild.after(bar, key);
}

// Sums of the same name over processes.
function added(report, list, key, pages) {
  const sums = new Map();
  for (const process of report.processes) {
    for (const each of process[list] || []) {
      const name = key(each);
      const sum = sums.get(name) || { ...each, pages: 0, processes: 0 };
      sum.pages += pages(each);
      sum.processes += process.processes || 1;
      sums.set(name, sum);
    }
  }
  return [...sums.values()];
}

// What forked processes have that they touched first.
function showNew(report) {
  if (report.newCauses.length === 0) return;
  tablePanel("new", "New memory", report.newCauses, [
    nameColumn("Cause", (row) => row.name), shareColumn("Share", (row) => row.of_all),
    { title: "New", number: true, isSorted: true, value: (row) => row.bytes, show: (row) => bytesText(row.bytes) },
  ], (row) => row.name, "Parts of NEW of all processes, estimated.");
  const columns = siteColumns("Touched");
  columns[1].isSorted = true;
  tablePanel("new-sites", "Code of new memory", report.newSites, columns, siteText, "Each time that a process got a fresh page.");
}

function showMemory(report) {
  const processes = { title: "Processes", number: true, level: 2, value: (row) => row.processes, show: (row) => countText(row.processes) };
  const objects = added(report, "objects", (each) => `${each.arena}\0${each.name}\0${each.type}`, (each) => each.copied_pages);
  tablePanel("objects", "Objects", objects, [
    nameColumn("Object", (row) => row.name || "(without a name)"), nameColumn("Type", (row) => row.type, 2), nameColumn("Arena", (row) => row.arena, 2),
    pagesColumn("Copied", (row) => row.pages), processes,
  ], (row) => [row.name, row.type, row.arena].join("\n"), "Of frozen arenas; a page that objects share counts for each.");
  tablePanel("types", "Python objects", report.run.types || [], [
    nameColumn("Type", (row) => row.name), pagesColumn("Copied", (row) => row.estimated_copies),
    samplesColumn,
  ], (row) => row.name, "Writes to what the interpreter keeps in each object, of all processes, estimated.");
  const arenas = added(report, "arenas", (each) => each.name, (each) => each.copied_pages);
  tablePanel("arenas", "Arenas", arenas, [
    nameColumn("Arena", (row) => row.name), { title: "Size", number: true, value: (row) => row.bytes, show: (row) => bytesText(row.bytes) },
    pagesColumn("Copied", (row) => row.pages), processes,
  ], (row) => row.name);
  tablePanel("mappings", "Mappings", report.run.mappings || [], [
    nameColumn("Mapping", (row) => row.name), pagesColumn("Copied", (row) => row.estimated_copies),
    samplesColumn,
  ], (row) => row.name, "Of all processes, estimated.");
  const sent = added(report, "transfers", (each) => [each.origin, each.name, each.type, each.kind].join("\0"), (each) => each.bytes);
  tablePanel("transfers", "Sent", sent, [
    nameColumn("Through", (row) => `${row.origin} ${row.name}`), nameColumn("Type", (row) => row.type, 2), nameColumn("As", (row) => row.kind, 2),
    { title: "Bytes", number: true, isSorted: true, value: (row) => row.pages, show: (row) => bytesText(row.pages) },
  ], (row) => [row.origin, row.name, row.type, row.kind].join("\n"));
}
