function commandText(recording) {
  if (recording.command.length === 0) return `cowtop ${recording.selection || `-p ${recording.attached_pid}`}`;
  return recording.command.map((word) => (/^[\w@%+=:,.\/-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
}

function showCommand(recording) {
  const command = commandText(recording);
  document.title = `cowtop: ${command}`;
  document.getElementById("bar-title").textContent = command;
  page.main.append(element("h1", {}, command));
}

function showHeading(report) {
  const { run, recording } = report;
  showCommand(recording);
  const facts = [
    element("span", { class: run.exact && !run.lost_events ? "badge" : "badge rough" }, !run.exact ? "sampled" : run.lost_events ? "inexact" : "exact"),
    `${run.backend} backend`, new Date(recording.started_s * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" }),
    `for ${secondsText(run.duration_s)}`, `Linux ${recording.kernel}`, plural(recording.cpus, "CPU"), `cowtop ${recording.cowtop}`,
  ];
  page.main.append(element("div", { class: "facts" }, ...facts.map((fact) => (typeof fact === "string" ? element("span", {}, fact) : fact))));
  const warnings = [report.note && `${report.note}.`];
  if (run.lost_events) warnings.push(`${plural(run.lost_events, "event")} were lost: the figures are too low.`);
  if (run.not_seen && run.not_seen.at_most !== 0) {
    const { at_least: least, at_most: most } = run.not_seen;
    const number = !isKnown(most) ? `at least ${countText(least)}` : least === most ? countText(least) : `${countText(least)} to ${countText(most)}`;
    warnings.push(`Processes that ended before they were seen: ${number}.`);
  }
  const merged = report.processes.filter((process) => processesOf(process) > 1);
  if (merged.length > 0) {
    const count = merged.reduce((sum, process) => sum + process.processes, 0);
    warnings.push(`${countText(count)} of the processes that ended, which copied least, are summed by place and name in ${plural(merged.length, "row")} ("and more").`);
  }
  const unreadable = report.processes.filter((process) => process.unreadable).length;
  if (unreadable > 0) warnings.push(`The memory of ${plural(unreadable, "process", "processes")} could not be read: what they still share is not known.`);
  for (const warning of warnings.filter(Boolean)) page.main.append(element("p", { class: "banner" }, warning));
}

function showTiles(report) {
  const { processes, run } = report;
  const total = tile(pagesText(report.copiedPages), `copied, ${plural(report.copiedPages, "page")}`, { class: "tile hot", id: "total" });
  total.dataset.pages = report.copiedPages;
  const sharedBy = (process) => (sharedAtFork(process) || 0) / processesOf(process);
  const shared = processes.reduce((most, process) => Math.max(most, sharedBy(process)), 0);
  // Of workers, not of a shell's children: whoever shared at least half of the most, and 1 MiB.
  const least = Math.max(shared / 2, 1 << 20);
  const worst = processes.filter((process) => sharedBy(process) >= least).reduce(
    (most, process) => ((copiedRatio(process) || 0) > (most ? copiedRatio(most) : 0) ? process : most), null);
  const tiles = [total, tile(bytesText(shared), "shared at most by a fork")];
  if (worst) tiles.push(tile(percentText(copiedRatio(worst)), `of what it shared, ${nameOf(worst)} copied`));
  const alive = processes.filter((process) => process.alive).length;
  const all = processes.reduce((sum, process) => sum + processesOf(process), 0);
  tiles.push(tile(countText(all), alive > 0 ? `processes, ${countText(alive)} of them running` : "processes"));
  const { memory } = run;
  if (memory) tiles.push(tile(bytesText(memory.peak_pss_bytes), "all held at once, at most (PSS)"));
  page.main.append(element("div", { class: "tiles" }, ...tiles));
}

function showContents() {
  const links = [...document.querySelectorAll("section[id]")].map((panel) => element("a", { href: `#${panel.id}` }, panel.getAttribute("aria-label")));
  const tiles = document.querySelector(".tiles");
  if (tiles) tiles.after(element("nav", { class: "contents", "aria-label": "Contents" }, ...links));
}

function showReport(data) {
  const report = new Report(data);
  showHeading(report);
  showTiles(report);
  showProcesses(report);
  showCurves(report);
  showFlame(report);
  showSites(report);
  showWhy(report);
  showMemory(report);
  const { overhead } = report.run;
  const cost = isKnown(overhead.ns_per_event) ? ` of ${overhead.ns_per_event.toFixed(0)} ns` : "";
  page.main.append(element("footer", {}, `What cowtop itself did: ${countText(overhead.events)} ${report.run.exact ? "events" : "samples"}${cost}.`));
}

// A recording in which nothing is yet.
function showBegun({ recording, note }) {
  showCommand(recording);
  page.main.append(element("p", { class: "banner" }, `${note}.`));
}

startTheme();
const data = JSON.parse(document.getElementById("data").textContent);
if (data.kind === "diff") showComparison(data.diff);
else if (data.kind === "begun") showBegun(data);
else showReport(data);
showContents();
startSearch();
startResize();
// How long that took, from the opening of the page on.
document.documentElement.dataset.readyMs = performance.now().toFixed();
