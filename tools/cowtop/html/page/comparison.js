// The page of cowtop diff: what grew and what shrank.

function changeBar(change, most) {
  if (!isKnown(change.growth)) return "";
  const part = element("i", { class: change.growth > 0 ? "up" : "down" });
  part.style.width = `${(Math.abs(change.growth) / most) * 50}%`;
  return element("span", { class: "change" }, part);
}

function growthText(change) {
  if (!isKnown(change.growth)) return UNKNOWN;
  const text = pagesText(Math.abs(change.growth));
  return change.growth > 0 ? `+${text}` : change.growth < 0 ? `\u2212${text}` : text;
}

const ratioOf = (change) => (change.before && isKnown(change.after) && isKnown(change.growth) ? change.growth / change.before : null);

function showChanges(id, title, changes, hint) {
  if (changes.length === 0) return;
  const changed = changes.filter((change) => isKnown(change.growth) && change.growth !== 0).length;
  const most = changes.reduce((value, change) => Math.max(value, Math.abs(change.growth || 0)), 1);
  const panel = section(id, title);
  const table = new Table({
    fixed: true, rows: changes, sort: 1,
    columns: [
      { title: "Name", main: true, value: (row) => row.name, show: (row) => element("span", { title: row.name }, marked(row.name)) },
      { title: "Change", number: true, help: "Sorted by its size", value: (row) => (isKnown(row.growth) ? Math.abs(row.growth) : null),
        show: (row) => element("span", { class: row.growth > 0 ? "up" : row.growth < 0 ? "down" : "" }, growthText(row), " ", changeBar(row, most)) },
      { title: "", number: true, level: 2, value: ratioOf, show: (row) => (ratioOf(row) === null ? "" : `${row.growth > 0 ? "+" : ""}${percentText(ratioOf(row))}`) },
      pagesColumn("Before", (row) => row.before, 2),
      pagesColumn("After", (row) => row.after, 2),
    ],
    isFound: (row) => matches(row.name.toLowerCase()),
    found: (shown, all) => panel.count(page.query === "" ? `${countText(changed)} of ${countText(all)} changed` : `${countText(shown)} of ${countText(all)}`),
  });
  if (hint) panel.append(element("p", { class: "hint" }, hint));
  panel.append(table.element);
}

const inPages = (bytes) => (isKnown(bytes) ? bytes / PAGE_BYTES : bytes);
const changeInPages = ({ name, before, after, growth }) => ({ name, before: inPages(before), after: inPages(after), growth: inPages(growth) });

function showComparison({ before, after, total, processes, process_new_bytes: newMemory, objects, sites, mappings, types }) {
  document.title = `cowtop: ${before} and ${after}`;
  document.getElementById("bar-title").textContent = `${before} \u2192 ${after}`;
  page.main.append(element("h1", {}, "What grew and what shrank"),
    element("div", { class: "facts" }, element("span", {}, "Before: ", element("code", {}, before)), element("span", {}, "After: ", element("code", {}, after))));
  const tiles = element("div", { class: "tiles" },
    tile(pagesText(total.before), "copied before", { id: "before" }), tile(pagesText(total.after), "copied after", { id: "after" }),
    tile(growthText(total), `${ratioOf(total) === null ? "" : `${percentText(ratioOf(total))} `}changed`, { id: "growth", class: total.growth > 0 ? "tile hot" : "tile" }));
  const missing = total.processes_not_known_before + total.processes_not_known_after;
  if (missing > 0) {
    page.main.append(element("p", { class: "banner" }, `The copies of ${plural(total.processes_not_known_before, "process", "processes")} before and ${plural(total.processes_not_known_after, "process", "processes")} after are not known, and in no total.`));
  }
  tiles.dataset.before = total.before;
  tiles.dataset.after = total.after;
  page.main.append(tiles);
  showChanges("processes", "Processes", processes, "Matched by their place in the tree: [2] is the second of that name, [all] are all where some were added up.");
  showChanges("new", "New memory", newMemory.map(changeInPages), "Of forked processes: neither copied, nor got at the fork.");
  showChanges("objects", "Objects", objects, "Sampled.");
  showChanges("sites", "Code", sites, "Of all processes, estimated.");
  showChanges("mappings", "Mappings", mappings, "Of all processes, estimated.");
  showChanges("types", "Python objects", types, "By type, of all processes, estimated.");
}
