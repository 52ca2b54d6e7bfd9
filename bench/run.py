#!/usr/bin/env python3
"""Runs the benchmarks of a build folder in turns, and writes OUT/results.csv, OUT/performance.md and
four plots.  ./tools/bench calls it."""
import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import observed
import page
import python_ways

# Each sitting is a fresh process, or several; in it, the repetitions of all rows are interleaved.
Family = collections.namedtuple("Family", "sittings repetitions")
FAMILIES = {
    "fork": Family(2, 3),
    "start": Family(2, 3),
    "memory": Family(1, 1),
    "churn": Family(2, 5),
    "fill": Family(2, 2),
    "freeze": Family(2, 1),
    "deref": Family(3, 5),
    "channel": Family(3, 3),
}
TOGETHER = ["fork", "start", "memory"]  # they use the same 17 GiB
MODULES = {"start": python_ways.start, "memory": python_ways.memory, "channel": python_ways.channel,
           "measuring": observed.measuring, "own_cost": observed.own_cost, "server": observed.server,
           "http": observed.http}
SITTINGS = {"measuring": 2, "server": 3, "channel": 2}  # of the modules; else 1
SUFFIX = re.compile(r"/(iterations|repeats|min_time|manual_time)(:[\d.]+)?")
COUNTERS = ["begun_ns", "answered_ns", "p99_ns", "pss_bytes", "page_table_bytes", "huge_percent", "use_s"]


def run_program(build, names, quick):
    """Yields name, metric and value of each repetition of these families of the program."""
    family = FAMILIES[names[0]]
    with subprocess.Popen(
            [build / "bench/bench", f"--benchmark_filter=^({'|'.join(names)})/", "--benchmark_format=json",
             "--benchmark_enable_random_interleaving=true",
             f"--benchmark_repetitions={1 if quick else family.repetitions}"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, **({"COWSHED_BENCH_QUICK": "1"} if quick else {})}) as program:
        output = program.stdout.read()
    if program.returncode != 0:
        raise RuntimeError(f"bench has ended with {program.returncode}")
    for run in json.loads(output)["benchmarks"]:
        if run["run_type"] != "iteration":
            continue
        name = SUFFIX.sub("", run["name"])
        if run.get("error_occurred"):
            raise RuntimeError(f"{name}: {run['error_message']}")
        yield name, "time_ns", run["real_time"]
        yield from ((name, each, run[each]) for each in COUNTERS if each in run)


def parts_of(only):
    """The sitting, a name, and a function of the build folder and `quick`."""
    wanted = {only} if only else {*FAMILIES, *MODULES}
    if only == "fill":
        wanted.add("churn")
    together = [name for name in TOGETHER if name in wanted]
    groups = ([together] if together else []) + [[n] for n in FAMILIES if n in wanted and n not in TOGETHER]
    for names in groups:
        for sitting in range(max(FAMILIES[name].sittings for name in names)):
            now = [name for name in names if sitting < FAMILIES[name].sittings]
            yield sitting, " ".join(now), lambda build, quick, now=now: run_program(build, now, quick)
    for name, measure in MODULES.items():
        if name in wanted:
            for sitting in range(SITTINGS.get(name, 1)):
                yield sitting, f"{name}.py", measure


def measure_all(build, out, quick, only):
    """Writes results.csv after each part.  Returns what failed."""
    results, failed = collections.defaultdict(list), []
    for sitting, name, measure in sorted(parts_of(only), key=lambda part: part[0]):
        if quick and sitting:
            break
        began, values = time.monotonic(), collections.defaultdict(list)
        try:
            for row, metric, value in measure(build, quick):
                values[row, metric].append(value)
        except (RuntimeError, OSError, subprocess.SubprocessError) as failure:
            failed.append(f"{name}: {failure}")
        for key, of_sitting in values.items():
            results[key].append(of_sitting)
        page.write_csv(results, out)
        print(f"{name}, sitting {sitting + 1}: {time.monotonic() - began:.0f} s", flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=sorted({*FAMILIES, *MODULES}))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    failed = measure_all(options.build.resolve(), options.out, options.quick, options.only)
    if not failed and not options.only:
        page.write(options.out)
        print(f"written: {options.out}/performance.md, results.csv and four plots")
    if failed:
        sys.exit("error: " + "\nerror: ".join(failed))


if __name__ == "__main__":
    main()
