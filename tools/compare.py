#!/usr/bin/env python3
"""Compares what ./tools/try measured: the search service on the heap and in the arena.

Usage: compare.py FOLDER, with STORAGE-BACKEND.service.json (the service's own report) and
STORAGE-BACKEND.cowtop.json of each run.
"""

import json
import statistics
import sys
from pathlib import Path

PAGE = 4096
MIB = 1 << 20
BACKENDS = {"tracepoint": "eBPF, exact", "pagemap": "/proc, sampled"}


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


class Run:
    """One run of the service under cowtop."""

    def __init__(self, folder, storage, backend):
        self.service = load(folder / f"{storage}-{backend}.service.json")
        report = load(folder / f"{storage}-{backend}.cowtop.json")
        if report["backend"] != backend:
            sys.exit(f"error: measured by {report['backend']}, not by {backend}")
        by_pid = {process["pid"]: process for process in report["processes"]}
        self.workers = [by_pid[worker["pid"]] for worker in self.service["workers"]]

    def arena_pages(self):
        # Not seen is not zero.
        if not all(row["arenas"] for row in self.workers):
            sys.exit("error: cowtop did not see the arena in every worker")
        return sum(arena["copied_pages"] for row in self.workers for arena in row["arenas"])

    def mean_copied_bytes(self):
        return statistics.mean(row["copied_bytes"] for row in self.workers)


def table(runs):
    """Rows of (name, heap, arena)."""
    yield "", "ordinary heap", "frozen arena"

    def row(name, cell, backend):
        return name, cell(runs["heap", backend]), cell(runs["arena", backend])

    backends = [backend for backend in BACKENDS if ("heap", backend) in runs]
    best = backends[0]
    yield row("index", lambda run: f"{run.service['index_bytes'] / MIB:.1f} MiB", best)
    for backend in backends:
        how = BACKENDS[backend]
        for rank in range(len(runs["heap", backend].workers)):
            yield row(f"copied by worker {rank} ({how})",
                      lambda run, rank=rank: f"{run.workers[rank]['copied_bytes'] / MIB:.1f} MiB",
                      backend)
        yield (f"pages of the arena copied by all ({how})", "-",
               str(runs["arena", backend].arena_pages()))
    yield row("fork, median of the workers",
              lambda run: f"{statistics.median(w['fork_us'] for w in run.service['workers']):.0f} us",
              best)
    yield row("private memory of all workers",
              lambda run: f"{run.service['total_private_bytes'] / MIB:.1f} MiB", best)


def main(folder):
    runs = {
        (storage, backend): Run(folder, storage, backend)
        for storage in ("heap", "arena") for backend in BACKENDS
        if (folder / f"{storage}-{backend}.cowtop.json").exists()
    }
    same = next(iter(runs.values())).service["same"]
    if any(run.service["same"] != same for run in runs.values()):
        sys.exit("error: the runs did not give the same answers")

    lines = list(table(runs))
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    for name, heap, arena in lines:
        print(f"{name:<{widths[0]}}  {heap:>{widths[1]}}  {arena:>{widths[2]}}".rstrip())
    print(f"\nEvery run gave the same {same['queries']} answers over {same['records']} packages, "
          f"copied {same['references_copied']} references\nand freed {same['frees']} objects.")

    best = next(backend for backend in BACKENDS if ("heap", backend) in runs)
    heap = runs["heap", best]
    share = heap.mean_copied_bytes() / heap.service["index_bytes"]
    print(f"\nTo read an index of {heap.service['index_bytes'] / MIB:.0f} MiB, each forked worker copied "
          f"{share:.0%} as much memory on the\nordinary heap, and "
          f"{runs['arena', best].arena_pages()} pages of the index in a frozen arena.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
