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
  const merged = report.processes.filter((process) => processesOf(process) > 1);
  if (merged.length > 0) {
    const count = merged.reduce((sum, process) => sum + process.processes, 0);
    warnings.push(`${countText(count)} of the processes that ended, which copied least, are summed by place and name in ${plural(merged.length, "row")} ("and more").`);
  }
  for (const warning of warnings.filter(Boolean)) page.main.append(element("p", { class: "banner" }, warning));
}

// The report as on a terminal: its first lines become paragraphs.
function showText({ text }) {
  const end = text.indexOf("\n\n");
  const lines = text.slice(0, end).split(/\n(?! )/);
  page.main.append(element("section", { id: "report", "aria-label": "Report" },
    ...lines.map((line) => element("p", {}, line)),
    element("div", { class: "table" }, element("pre", {}, text.slice(end + 2).trimEnd()))));
}

function showContents() {
  const links = [...document.querySelectorAll("section[id]:not(#report)")].map((panel) => element("a", { href: `#${panel.id}` }, panel.getAttribute("aria-label")));
  const first = document.querySelector(".tiles, #report");
  if (first) first.after(element("nav", { class: "contents", "aria-label": "Contents" }, ...links));
}

function showReport(data) {
  const report = new Report(data);
  showHeading(report);
  showText(data);
  showProcesses(report);
  showCurves(report);
  showFlame(report);
  showSites(report);
  showWhy(report);
  showNew(report);
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
