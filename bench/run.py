#!/usr/bin/env python3
"""Runs the benchmarks of a build folder in turns, and writes OUT/results.csv, OUT/performance.md, its
figures.json and two plots.  ./tools/bench calls it."""
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
import pools
import python_ways

SUFFIX = re.compile(r"/(iterations|repeats|min_time|manual_time)(:[\d.]+)?")
COUNTERS = ["begun_ns", "answered_ns", "pss_bytes", "page_table_bytes", "huge_percent", "use_s", "move_ns",
            "first_write_ns", "second_write_ns"]
DECIDING_S = 600


def program(repetitions):
    """Returns a function that runs families of `bench` and yields name, metric and value of each repetition."""
    def run(build, quick, families):
        with subprocess.Popen(
                [build / "bench/bench", f"--benchmark_filter=^({'|'.join(families)})/", "--benchmark_format=json",
                 "--benchmark_enable_random_interleaving=true",
                 f"--benchmark_repetitions={1 if quick else repetitions}"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env={**os.environ, **({"COWSHED_BENCH_QUICK": "1"} if quick else {})}) as process:
            output = process.stdout.read()
        if process.returncode != 0:
            raise RuntimeError(f"bench has ended with {process.returncode}")
        for row in json.loads(output)["benchmarks"]:
            if row["run_type"] != "iteration":
                continue
            name = SUFFIX.sub("", row["name"])
            if row.get("error_occurred"):
                raise RuntimeError(f"{name}: {row['error_message']}")
            yield name, "time_ns", row["real_time"]
            yield from ((name, each, row[each]) for each in COUNTERS if each in row)
    return run


# Each sitting is a fresh process, or several; in it, the repetitions of all rows are interleaved.
Part = collections.namedtuple("Part", "families sittings measure")
PARTS = [
    Part(["fork", "start", "memory"], 3, program(3)),  # they use the same 21 GiB
    Part(["settle"], 3, program(3)),
    Part(["churn", "fill"], 3, program(3)),
    Part(["freeze"], 3, program(1)),
    Part(["deref"], 3, program(5)),
    Part(["channel"], 3, program(4)),
    Part(["start"], 2, python_ways.start),
    Part(["memory"], 2, python_ways.memory),
    Part(["channel"], 3, python_ways.channel),
    Part(["measuring"], 2, observed.measuring),
    Part(["own_cost"], 2, observed.own_cost),
    Part(["server"], 3, observed.server),
    Part(["http"], 1, observed.http),
    Part(["pool"], 3, pools.pool),
    Part(["warm"], 3, pools.warm),
    Part(["census"], 2, pools.census),
]
FAMILIES = sorted({family for part in PARTS for family in part.families})


def measure_all(build, out, quick, wanted):
    """Writes results.csv after each part.  Returns what failed."""
    results, failed = collections.defaultdict(list), []

    def sit(part, names, what):
        for is_last in (False, True):  # once more: memory may have had no room for 2 MiB pages, say
            began, values = time.monotonic(), collections.defaultdict(list)
            try:
                for row, metric, value in part.measure(build, quick, names):
                    values[row, metric].append(value)
            except (RuntimeError, OSError, subprocess.SubprocessError) as failure:
                print(f"{names[0]}, {what}: {failure}", flush=True)
                if is_last:
                    failed.append(f"{names[0]}: {failure}")
                continue
            for key, of_sitting in values.items():
                results[key].append(of_sitting)
            page.write_csv(results, out)
            print(f"{' '.join(names)}, {what}: {time.monotonic() - began:.0f} s", flush=True)
            return

    for sitting in range(1 if quick else 3):
        for part in PARTS:
            if sitting < part.sittings and (families := [family for family in part.families if family in wanted]):
                sit(part, families, f"sitting {sitting + 1}")
    if not quick and wanted == FAMILIES and not failed:
        end = time.monotonic() + DECIDING_S
        while time.monotonic() < end and not failed and (rows := page.undecided(results)):
            for part in PARTS:
                if names := sorted(row for row in rows if row.split("/")[0] in part.families):
                    sit(part, names, "once more")
                    rows -= {*names}
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=FAMILIES)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = [options.only] if options.only else FAMILIES
    if not {"churn", "fill"}.isdisjoint(wanted) and (said := page.too_many_threads(len(os.sched_getaffinity(0)))):
        print(f"churn and fill: {said}", flush=True)
    if failed := measure_all(options.build.resolve(), options.out, options.quick, wanted):
        sys.exit("error: " + "\nerror: ".join(failed))
    if not options.only:
        page.write(options.out)


if __name__ == "__main__":
    main()
