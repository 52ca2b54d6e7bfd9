// The report's data, linked: processes with their parents, curves and stacks.

const SIGNALS = { 1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM" };

function endingText(process) {
  if (process.alive) return "running";
  if (process.signal) return SIGNALS[process.signal] || `signal ${process.signal}`;
  return isKnown(process.exit_status) ? `exit ${process.exit_status}` : "ended";
}

// That a row is the sum of: of those that have ended.
const processesOf = (process) => process.processes || 1;
const andMore = (process) => (processesOf(process) > 1 ? ` and ${countText(processesOf(process) - 1)} more` : "");
const nameOf = (process) => `${process.title || process.comm} ${process.pid}${andMore(process)}`;

// Those without a name are one for each type.
const objectText = (object) => (object.name ? `${object.name} (${object.type})` : `${object.type}, without a name`);

// A figure of cow/figures.h, by its path.
const valueOf = (process, figure) => figure.name.split(".").reduce((value, part) => (isKnown(value) ? value[part] : null), process);
const figureText = (figure, value) => ({ bytes: bytesText, count: countText, ratio: percentText, seconds: secondsText, nanoseconds: millisecondsText })[figure.unit](value);

function textOf(process) {
  const texts = [nameOf(process), endingText(process), process.role, process.not_measured];
  for (const pattern of process.patterns || []) texts.push(pattern.pattern, pattern.evidence);
  for (const arena of process.arenas) texts.push(arena.name);
  for (const object of process.objects || []) texts.push(object.name, object.type);
  for (const mapping of process.mappings || []) texts.push(mapping.name);
  for (const sent of process.transfers || []) texts.push(sent.name, sent.type);
  return texts.filter(isKnown).join("\n").toLowerCase();
}

// Processes with stacks in which a function is found, too: `hits`, by node, as of the last search.
class Stacks {
  constructor(data, processes) {
    this.names = data.names;
    this.lower = data.names.map((name) => name.toLowerCase());
    this.parent = data.parent;
    this.name = data.name;
    this.own = data.pages;
    this.hits = null;
    this.children = data.parent.map(() => null);
    for (let i = 1; i < data.parent.length; ++i) {
      (this.children[data.parent[i]] ||= []).push(i);
    }
    for (const { process, pages } of data.of) processes[process].stackPages = pages;
  }

  // Pages by node, with those below it: of a process, or null: of all.
  totals(process) {
    const totals = new Float64Array(this.parent.length);
    if (process) {
      const pages = process.stackPages || [];
      for (let i = 0; i < pages.length; i += 2) totals[pages[i]] += pages[i + 1];
    } else {
      totals.set(this.own);
    }
    for (let i = totals.length - 1; i > 0; --i) totals[this.parent[i]] += totals[i];
    return totals;
  }

  search() {
    this.hits = null;
    if (page.query === "") return;
    const found = this.lower.map((name) => name !== "" && matches(name));
    // Of a node: 1, if it has the name; 2, if one above it has.
    this.hits = new Uint8Array(this.parent.length);
    for (let i = 1; i < this.hits.length; ++i) {
      this.hits[i] = found[this.name[i]] ? 1 : this.hits[this.parent[i]] ? 2 : 0;
    }
  }

  isHit(process) {
    const pages = process.stackPages || [];
    if (this.hits === null) return false;
    for (let i = 0; i < pages.length; i += 2) if (this.hits[pages[i]]) return true;
    return false;
  }
}

// What a process, or all, copied: [seconds, bytes], from its begin to its end; and what it still
// shares: [seconds, ratio].
class Curve {
  constructor(begin, end, at, pages, shared) {
    // Of one that ended between two moments all is known from its end on.
    const points = (values, scale) => at.map((seconds, i) => [Math.min(seconds, end), values[i] * scale]).filter((point, i) => isKnown(values[i]));
    this.copied = points(pages, PAGE_BYTES);
    this.shared = points(shared, 1);
    const first = this.copied[0];
    const last = this.copied[this.copied.length - 1];
    if (first && begin < first[0]) this.copied.unshift([begin, 0]);
    if (last && end > last[0]) this.copied.push([end, last[1]]);
  }

  rate() {
    const result = [];
    for (let i = 1; i < this.copied.length; ++i) {
      const [begin, before] = this.copied[i - 1];
      const [end, after] = this.copied[i];
      if (end <= begin) continue;
      const value = Math.max(0, after - before) / (end - begin);
      result.push([begin, value], [end, value]);
    }
    return result;
  }
}

class Report {
  constructor(data) {
    this.run = data.run;
    this.recording = data.recording;
    this.note = data.note;
    this.sites = data.sites;
    this.newSites = data.new_sites;
    this.processes = data.run.processes;
    this.detailed = data.detailed;
    this.counts = data.counts;
    this.figures = data.figures;
    this.causes = data.causes;
    this.newCauses = data.new_causes;
    const origin = data.run.taken_ns - data.run.duration_s * 1e9;
    const latest = new Map(); // of each PID, up to here
    const roots = this.processes.filter((process) => process.role === "root");
    this.processes.forEach((process, i) => {
      process.number = i;
      process.children = [];
      process.parent = process.role === "root" ? null : latest.get(process.ppid) || (roots.length === 1 && i > 0 ? this.processes[0] : null);
      process.depth = process.parent ? process.parent.depth + 1 : 0;
      if (process.parent) process.parent.children.push(process);
      latest.set(process.pid, process);
      process.begin_s = Math.max(0, (process.start_ns - origin) / 1e9);
      process.end_s = isKnown(process.end_ns) ? Math.max(0, (process.end_ns - origin) / 1e9) : data.run.duration_s;
      process.text = textOf(process);
      process.causes = data.copied_causes[i];
      process.why = process.causes[0] || null;
    });
    this.stacks = new Stacks(data.stacks, this.processes);
    this.addCurves(data.curves);
    page.on("search", () => this.stacks.search());
  }

  addCurves({ at_s: at, total, still_shared: shared, of }) {
    for (const { process: number, begin, copied, still_shared: itsShared } of of) {
      const process = this.processes[number];
      process.curve = new Curve(process.begin_s, process.end_s, at.slice(begin, begin + copied.length), copied, itsShared);
    }
    this.curve = new Curve(0, this.run.duration_s, at, total, shared);
  }

  // What is searched of a process.
  isFound(process) {
    return matches(process.text) || this.stacks.isHit(process);
  }
}
