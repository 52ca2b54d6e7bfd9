"""What ./tools/bench runs once all is built: the benchmarks in a build folder, one after another."""
import argparse
import datetime
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import growth
import plan
import plots
import publish
import results as found
import running
from folder import Folder, SCHEMA

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent


def begin(part, build, json_file, results):
    """Runs it, or says why not; whatever else goes wrong is the failure of this part alone."""
    try:
        why = plan.why_not(part, build)
        if why:
            print(f"  skipped: {why}")
            results.skipped.append((part, why))
            return
        json_file.unlink(missing_ok=True)
        run = running.run(part, build, json_file)
        results.add(run, json_file)
    except (OSError, ValueError, LookupError, StopIteration) as error:
        run = running.Run(part, 0, 1, 0, 0, f"{type(error).__name__}: {error}")
        results.runs.append(run)
        results.failed.append(run)
    if run.exit_code != 0:
        print("\n".join(f"  {line}" for line in run.output.splitlines()[-20:]))
    print(f"  {'FAILED' if run in results.failed else 'done'} in {run.seconds:.1f} s", flush=True)


def measure(build, only, results, about, folder):
    """Until done or interrupted."""
    parts = [part for part in plan.PLAN[results.size] if only in ("", part.benchmark)]
    keep(results, about, folder)
    with tempfile.TemporaryDirectory(prefix="cowshed-bench-") as temporary:
        json_file = pathlib.Path(temporary) / "report.json"
        for number, part in enumerate(parts, 1):
            print(f"[{number}/{len(parts)}] {found.command(part)}", flush=True)
            begin(part, build, json_file, results)
            keep(results, about, folder, part.benchmark)


def keep(results, about, folder, *changed):
    """What was measured until now, for who kills this, or the machine."""
    for name in changed:
        if name in results.reports:
            folder.save(f"{name}.json", lambda name=name: json.dumps(results.reports[name], indent=2))
    folder.save("run.json", lambda: index(results, about, folder, finished=False))


def index(results, about, folder, finished):
    return json.dumps({
        "schema": SCHEMA, "commit": results.commit, "size": results.size,
        "only": results.only, "began": results.began, "finished": finished, "machine": about,
        "doubts": list(results.doubts()), "interrupted": results.interrupted,
        "runs": [{"command": found.command(run.part), "seconds": run.seconds,
                  "exit_code": run.exit_code, "others": run.others, "stolen": run.stolen}
                 for run in results.runs],
        "skipped": [{"command": found.command(part), "why": why} for part, why in results.skipped],
        "files": sorted({*folder.files, "run.json"})}, indent=2)


def page_of(results, folder):
    files = [f"{name}.json" for name in results.reports]
    made = subprocess.run([SOURCE / "bench/performance_page", results.commit, folder.path / "run.json",
                           *(folder.path / name for name in files if name in folder.files)],
                          capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise RuntimeError(made.stderr.strip().rpartition("\n")[2])
    return made.stdout


def write(results, about, folder):
    drawn = {}
    for name, report in results.reports.items():
        folder.save(f"{name}.json", lambda report=report: json.dumps(report, indent=2))
        results.families += folder.attempt(
            f"{name}: how it grows", lambda report=report: growth.families(report)) or []
        drawn[name] = folder.attempt(f"{folder.path / name}.*.svg cannot be written",
                                     lambda report=report: plots.draw(report, folder.path))
        if drawn[name] is None:
            drawn[name] = []
            folder.remove_plots(name)  # which leaves room for what is more important
        for path in drawn[name]:
            folder.has(path.name)
    folder.save("results.csv", lambda: found.csv_text(results))
    keep(results, about, folder)
    if results.reports:
        folder.save("performance.md", lambda: page_of(results, folder))
    folder.save("README.md", lambda: found.summary(results, about, drawn))
    folder.save("run.json", lambda: index(results, about, folder, finished=True))


def report(results):
    for doubt in results.doubts():
        print(f"doubt: {doubt}")
    for verdict, name, what in results.verdicts():
        if verdict != "met":
            print(f"{verdict}: {name}, {what}")


def write_docs(results, folder, root):
    """Of a run that is whole and sound."""
    if results.interrupted or results.failed or results.skipped or folder.problems:
        folder.has_problem("README.md and docs/ are left as they were: the run is not whole")
        return
    files = folder.attempt("README.md and docs/ are left as they were",
                           lambda: publish.publish(folder.path / "performance.md", root))
    if files:
        print(f"written: {', '.join(files)}")


def main():
    parser = argparse.ArgumentParser(prog="bench/suite", description=__doc__)
    parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve(),
                        help="the folder with the benchmarks, built")
    parser.add_argument("out", type=pathlib.Path, help="the folder to write to")
    parser.add_argument("--size", choices=plan.PLAN, default="full")
    parser.add_argument("--only", choices=plan.benchmarks(), default="", help="one benchmark")
    parser.add_argument("--docs", type=pathlib.Path, metavar="ROOT",
                        help="whose README.md and docs/ get the figures")
    options = parser.parse_args()
    folder = Folder(options.out)
    about = found.machine()
    results = found.Results(found.commit_of(SOURCE), options.size, options.only,
                            datetime.datetime.now(datetime.timezone.utc).strftime("%F %T UTC"),
                            problems=folder.problems)
    try:
        measure(options.build, options.only, results, about, folder)
    except KeyboardInterrupt:
        results.interrupted = True
        print("\ninterrupted: writing what was measured", flush=True)
    running.ignore_interrupts()
    write(results, about, folder)
    report(results)
    if options.docs:
        write_docs(results, folder, options.docs)
    print(f"results in {options.out}: README.md first")
    sys.exit(130 if results.interrupted else 1 if results.failed or folder.problems else 0)


if __name__ == "__main__":
    sys.stdout = running.Teller(sys.stdout)
    running.end_by_signals()
    try:
        main()
    except KeyboardInterrupt:  # before anything was measured
        sys.exit(130)
