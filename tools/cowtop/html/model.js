// The report's data, linked: processes with their parents, curves and stacks.

const SIGNALS = { 1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM" };

function endingText(process) {
  if (process.alive) return "running";
  if (process.signal) return SIGNALS[process.signal] || `signal ${process.signal}`;
  return isKnown(process.exit_status) ? `exit ${process.exit_status}` : "ended";
}

const nameOf = (process) => `${process.comm} ${process.pid}`;

// Of what is resident and not a file's, how much is shared with another process.
function sharedRatio(shared, unshared) {
  return isKnown(shared) && isKnown(unshared) && shared + unshared > 0 ? shared / (shared + unshared) : null;
}

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

// The curves of a process, or of all: [seconds, value] by measure.
class Curve {
  constructor(begin, end, at, copied, shared, unshared) {
    this.points = [];
    at.forEach((seconds, i) => this.points.push({ at: seconds, copied: copied[i], shared: shared[i], unshared: unshared[i] }));
    if (copied.length > 0 && isKnown(copied[0]) && begin < at[0]) {
      this.points.unshift({ at: begin, copied: 0, shared: null, unshared: null });
    }
    const last = this.points[this.points.length - 1];
    if (last && end > last.at) this.points.push({ ...last, at: end });
  }

  copied() {
    return this.points.filter((point) => isKnown(point.copied)).map((point) => [point.at, point.copied * PAGE_BYTES]);
  }

  rate() {
    const copied = this.copied();
    const result = [];
    for (let i = 1; i < copied.length; ++i) {
      const seconds = copied[i][0] - copied[i - 1][0];
      if (seconds <= 0) continue;
      const value = Math.max(0, copied[i][1] - copied[i - 1][1]) / seconds;
      result.push([copied[i - 1][0], value], [copied[i][0], value]);
    }
    return result;
  }

  stillShared() {
    return this.points
      .map((point) => [point.at, sharedRatio(point.shared, point.unshared)])
      .filter((point) => isKnown(point[1]));
  }
}

class Report {
  constructor(data) {
    this.run = data.run;
    this.recording = data.recording;
    this.note = data.note;
    this.sites = data.sites;
    this.processes = data.run.processes;
    this.detailed = data.detailed;
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
      process.why = (process.patterns || [])[0] || null;
    });
    this.stacks = new Stacks(data.stacks, this.processes);
    this.addCurves(data.curves);
    this.copiedPages = this.processes.reduce(
      (sum, process) => (isKnown(process.copied_pages) ? (sum || 0) + process.copied_pages : sum), null);
    page.on("search", () => this.stacks.search());
  }

  addCurves({ at_s: at, total, of }) {
    const shared = new Array(at.length).fill(null);
    const unshared = new Array(at.length).fill(null);
    for (const curve of of) {
      const process = this.processes[curve.process];
      const times = at.slice(curve.begin, curve.begin + curve.copied.length);
      process.curve = new Curve(process.begin_s, process.end_s, times, curve.copied, curve.shared, curve.private);
      // Once it no longer changed it stayed so to its end.
      for (let i = curve.begin; i < at.length && at[i] <= process.end_s + 1e-3; ++i) {
        const j = Math.min(i - curve.begin, curve.copied.length - 1);
        if (!isKnown(curve.shared[j])) continue;
        shared[i] = (shared[i] || 0) + curve.shared[j];
        unshared[i] = (unshared[i] || 0) + curve.private[j];
      }
    }
    this.curve = new Curve(0, this.run.duration_s, at, total, shared, unshared);
  }

  // What is searched of a process.
  isFound(process) {
    return matches(process.text) || this.stacks.isHit(process);
  }
}
