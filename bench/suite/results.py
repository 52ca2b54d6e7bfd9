"""What a run of the suite found: merged reports, rows, and every doubt about them."""
import csv
import dataclasses
import io
import json
import os
import pathlib
import platform
import re
import subprocess

import jsonschema

import growth
import page

COLUMNS = ("benchmark", "kind", "group", "name", "unit", "value", "low", "high", "pairs", "bound",
           "limit", "verdict")
# As the benchmarks say it, in the names or the texts of settings.
NOT_MEASURED = re.compile(
    "^[^:]+, not possible: |^([^:]+: )?(not installed: )?not measured|^left out: |^2 MiB pages: none ")
SCHEMA = json.loads((pathlib.Path(__file__).resolve().parents[2] / "docs/schemas/cowshed.bench-1.json")
                    .read_text(encoding="utf-8"))
BUSY = 0.05  # of the machine's CPU time, by others: worth a doubt


@dataclasses.dataclass
class Results:
    """Of one call of the command."""
    commit: str
    size: str
    only: str
    began: str
    reports: dict = dataclasses.field(default_factory=dict)  # by benchmark
    runs: list = dataclasses.field(default_factory=list)
    failed: list = dataclasses.field(default_factory=list)  # of runs
    skipped: list = dataclasses.field(default_factory=list)  # (part, why)
    interrupted: bool = False
    problems: list = dataclasses.field(default_factory=list)  # of what was written, one line each
    families: list = dataclasses.field(default_factory=list)  # what grows with a number, of all reports

    def add(self, run, json_file):
        self.runs.append(run)
        if run.exit_code != 0 or not json_file.exists():
            self.failed.append(run)
            return
        try:
            report = json.loads(json_file.read_text(encoding="utf-8"))
            jsonschema.validate(report, SCHEMA)
        except (ValueError, jsonschema.ValidationError) as error:  # a full disk, say
            why = getattr(error, "message", error)
            run.exit_code, run.output = 1, f"its report cannot be read: {why}"
            self.failed.append(run)
            return
        page.merge(self.reports, report)

    def doubts(self):
        """One line each."""
        for run in self.failed:
            last = run.output.splitlines()[-1] if run.output else "no word"
            yield f"{command(run.part)} failed with exit code {run.exit_code}: {last}"
        yield from self.problems
        for part, why in self.skipped:
            yield f"{command(part)} was skipped: {why}"
        if self.interrupted:
            yield "Interrupted: what comes later in the plan is not here"
        if self.commit.endswith("-dirty"):
            yield "The source has changes that are not in the commit"
        for name, report in self.reports.items():
            for row in report["settings"]:
                if NOT_MEASURED.search(f"{row['name']}: {row['text']}"):
                    yield f"{name}, {row['name']}: {row['text']}"
        small = list(dict.fromkeys(run.part.benchmark for run in self.runs if run.part.tiny))
        if small:
            yield (f"In tiny sizes, which say that it works and answers rightly, not how fast: "
                   f"{', '.join(small)}")
        for who, share in (("other processes", "others"), ("the host of this machine", "stolen")):
            shares = [(getattr(run, share), command(run.part)) for run in self.runs]
            beside = [f"{much:.0%} beside {what}" for much, what in shares if much > BUSY]
            if beside:
                yield f"{who.capitalize()} took CPU time: {', '.join(beside)}"
        for name, report in self.judged():
            for row in report["controls"]:
                noise = f"[{row['low']:.3g}, {row['high']:.3g}], {row['pairs']} pairs"
                if row["void"]:
                    yield (f"{name}, {row['group']}: void, the same against itself came out at "
                           f"{row['measured']:.3g} {noise}")
                elif row["low"] < 0.9 or row["high"] > 1.1:
                    yield (f"{name}, {row['group']}: noisy, the same against itself came out at "
                           f"{row['measured']:.3g} {noise}")

    def judged(self):
        """The reports of which the times mean something."""
        return [(name, report) for name, report in self.reports.items() if name not in self.tiny()]

    def tiny(self):
        """The benchmarks that ran in sizes of which the times mean nothing."""
        return {run.part.benchmark for run in self.runs if run.part.tiny}

    def verdicts(self):
        """(verdict, benchmark, what) of every goal of these."""
        return [(row["verdict"], name, row["what"]) for name, report in self.judged()
                for row in report["goals"]]


def analyses(source):
    """{(benchmark, goal): why it is missed}, as docs/missed_goals.md has them."""
    found = {}
    text = (source / "docs/missed_goals.md").read_text(encoding="utf-8")
    for item in re.split(r"^\* ", text, flags=re.MULTILINE)[1:]:
        benchmark, what, why = re.match(r"\*\*(\w+), (.+?)\*\*: (.+)", item, re.DOTALL).groups()
        found[benchmark, what.replace("\\", "")] = " ".join(why.split())
    return found


def command(part):
    return " ".join([part.benchmark, *(f'"{a}"' if " " in a else a for a in part.arguments)])


def commit_of(source):
    def git(*arguments):
        # Whoever runs the suite as root need not own the source.
        found = subprocess.run(["git", "-c", f"safe.directory={source}", "-C", source, *arguments],
                               capture_output=True, text=True, check=False)
        return found.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    return commit + ("-dirty" if git("status", "--porcelain", "--untracked-files=no") else "")


def first_line(path):
    try:
        return pathlib.Path(path).read_text(encoding="utf-8").splitlines()[0]
    except OSError:
        return "none"


def last_level_cache():
    """/proc/cpuinfo has the second level's, of some processors."""
    caches = pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")
    levels = {first_line(each / "level"): first_line(each / "size") for each in caches}
    return levels[max(levels)] if levels else "unknown"


def virtualization(kind):
    try:
        return subprocess.run(["systemd-detect-virt", kind], capture_output=True, text=True,
                              check=False).stdout.strip()
    except OSError:
        return "unknown"


def machine():
    """Beside what the reports say of it."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        lines = [line for line in file if line.startswith("model name")]
    facts = dict(line.rstrip().replace("\t", "").split(": ", 1) for line in lines)
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = dict(line.split(":") for line in file)
    pages = "/sys/kernel/mm/transparent_hugepage/"
    return {"processor": facts.get("model name", platform.machine()),
            "last-level cache": last_level_cache(),
            "cores": len(os.sched_getaffinity(0)),
            "memory": f"{int(memory['MemTotal'].split()[0]) / 2**20:.1f} GiB",
            "swap": f"{int(memory['SwapTotal'].split()[0]) / 2**20:.1f} GiB",
            "kernel": platform.release(), "glibc": platform.libc_ver()[1],
            "virtual machine": virtualization("--vm"), "container": virtualization("--container"),
            "frequency governor": first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            "THP": first_line(pages + "enabled"), "shmem THP": first_line(pages + "shmem_enabled"),
            "load at the start": "{:.2f} {:.2f} {:.2f}".format(*os.getloadavg())}


def rows(results):
    """Of every report, in the columns of the CSV."""
    for benchmark, report in results.reports.items():
        void = growth.void_groups(report)
        for kind in page.KINDS:
            for row in report[kind]:
                yield {"benchmark": benchmark, "kind": kind.removesuffix("s"),
                       "group": row.get("group", ""),
                       "name": row.get("name") or row.get("what") or "the same against itself",
                       "unit": row.get("unit", ""), "value": row.get("value", row.get("measured")),
                       "low": row.get("low", ""), "high": row.get("high", ""),
                       "pairs": row.get("pairs", ""), "bound": row.get("bound", ""),
                       "limit": row.get("limit", ""),
                       "verdict": "tiny sizes" if benchmark in results.tiny() else
                       row.get("verdict") or ("void" if row.get("group") in void else "")}
    for family in results.families:
        exponent = family.exponent() or growth.Interval("")
        yield {"benchmark": family.benchmark, "kind": "exponent", "group": family.variable,
               "name": family.what, "value": exponent.value,
               "low": "" if exponent.low is None else exponent.low,
               "high": "" if exponent.high is None else exponent.high,
               "verdict": ", ".join([*(["tiny sizes"] if family.benchmark in results.tiny() else []),
                                     *family.doubts()])}


def csv_text(results):
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(results))
    return text.getvalue()


def summary(results, about, plots):
    lines = ["# Results", "", f"`./tools/bench` at commit {results.commit}, begun {results.began}, "
             f"size {results.size}{f', only {results.only}' if results.only else ''}. "
             "The tables are in [performance.md](performance.md); all rows are in results.csv.", "",
             "## The machine", "", *(f"* {name}: {value}" for name, value in about.items()),
             "", "## Doubts", "", *([f"* {doubt}" for doubt in results.doubts()] or ["None."]),
             "", "## Goals", ""]
    verdicts = results.verdicts()
    counts = ", ".join(f"{sum(v == verdict for v, _, _ in verdicts)} {verdict}"
                       for verdict in ("met", "undecided", "missed", "void"))
    lines += [f"{counts}.", ""]
    why = analyses(pathlib.Path(__file__).resolve().parents[2])
    for verdict, name, what in verdicts:
        if verdict in ("undecided", "void"):
            lines.append(f"* {verdict}: {name}, {what}")
        elif verdict == "missed":
            reason = why.get((name, what), "docs/missed_goals.md does not say why")
            lines.append(f"* missed: {name}, {what}: {reason}")
    lines += ["", "## Runs", "",
              "| command | seconds | exit code | CPU time of others |", "|---|---|---|---|"]
    lines += [f"| {command(run.part)} | {run.seconds:.0f} | {run.exit_code} | {run.others:.0%} |"
              for run in results.runs]
    if results.families:
        lines += ["", "## How cost grows", "", growth.LEGEND, "", *growth.table(results.families)]
    for name, files in plots.items():
        lines += ["", f"## {name}", "", *(f"![{file.stem}]({file.name})" for file in files)]
    return "\n".join(lines) + "\n"
