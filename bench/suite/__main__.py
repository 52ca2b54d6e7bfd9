"""What ./tools/bench runs once all is built: the benchmarks in a build folder, one after another."""
import argparse
import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import plan
import plots
import results as found
import running

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
SCHEMA = "cowshed.bench-run/1"


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


def measure(build, size, only, results):
    """Until done or interrupted."""
    parts = [part for part in plan.PLAN[size] if only in ("", part.benchmark)]
    with tempfile.TemporaryDirectory(prefix="cowshed-bench-") as folder:
        json_file = pathlib.Path(folder) / "report.json"
        for number, part in enumerate(parts, 1):
            print(f"[{number}/{len(parts)}] {found.command(part)}", flush=True)
            begin(part, build, json_file, results)


def remove_earlier(folder):
    """What an earlier run left in its folder."""
    index = folder / "run.json"
    names = ["against.md", "against.json"]
    if index.exists():
        known = json.loads(index.read_text(encoding="utf-8"))
        if known.get("schema") != SCHEMA:
            sys.exit(f"bench: {index} is not of this command, nor is what else is there")
        names += known["files"]
    for name in names:
        if pathlib.PurePath(name).name == name:  # nothing outside, whatever it says
            (folder / name).unlink(missing_ok=True)


def write(results, about, folder):
    for name, report in results.reports.items():
        (folder / f"{name}.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    found.write_csv(results, folder / "results.csv")
    files = [folder / f"{name}.json" for name in results.reports]
    drawn = {name: plots.draw(report, folder) for name, report in results.reports.items()}
    found.write_summary(results, about, drawn, folder / "README.md")
    index = {
        "schema": SCHEMA, "commit": results.commit, "size": results.size,
        "only": results.only, "began": results.began, "machine": about,
        "doubts": list(results.doubts()), "interrupted": results.interrupted,
        "runs": [{"command": found.command(run.part), "seconds": run.seconds,
                  "exit_code": run.exit_code, "others": run.others, "stolen": run.stolen}
                 for run in results.runs],
        "skipped": [{"command": found.command(part), "why": why} for part, why in results.skipped],
        "files": sorted(path.name for path in
                        [folder / "results.csv", folder / "performance.md", folder / "README.md",
                         folder / "run.json", *files, *sum(drawn.values(), [])])}
    (folder / "run.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    with open(folder / "performance.md", "w", encoding="utf-8") as page:
        if files:
            subprocess.run([SOURCE / "bench/performance_page", results.commit, folder / "run.json",
                            *files], stdout=page, check=True)
    if "SUDO_UID" in os.environ:  # then they belong to who asked for them
        for path in [folder, *(folder / name for name in index["files"])]:
            os.chown(path, int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))


def report(results):
    for doubt in results.doubts():
        print(f"doubt: {doubt}")
    for verdict, name, what in results.verdicts():
        if verdict != "met":
            print(f"{verdict}: {name}, {what}")


def main():
    parser = argparse.ArgumentParser(prog="bench/suite", description=__doc__)
    parser.add_argument("build", type=lambda text: pathlib.Path(text).resolve(),
                        help="the folder with the benchmarks, built")
    parser.add_argument("out", type=pathlib.Path, help="the folder to write to")
    parser.add_argument("--size", choices=plan.PLAN, default="full")
    parser.add_argument("--only", choices=plan.benchmarks(), default="", help="one benchmark")
    options = parser.parse_args()
    remove_earlier(options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    about = found.machine()
    results = found.Results(found.commit_of(SOURCE), options.size, options.only,
                            datetime.datetime.now(datetime.timezone.utc).strftime("%F %T UTC"))
    try:
        measure(options.build, options.size, options.only, results)
    except KeyboardInterrupt:
        results.interrupted = True
        print("\ninterrupted: writing what was measured", flush=True)
    write(results, about, options.out)
    report(results)
    print(f"results in {options.out}: README.md first")
    sys.exit(130 if results.interrupted else 1 if results.failed else 0)


main()
