#!/usr/bin/env python3
"""Statistics of the results, what the project claims, and the page and plots that show it.
page.py FOLDER makes them again from FOLDER/results.csv, and FOLDER/figures.json, from which alone a test makes
them once more."""
import collections
import csv
import json
import math
import os
import pathlib
import platform
import random
import re
import statistics
import subprocess
import sys

from chart import chart, nice_time


def estimate(data, statistic):
    """Compares rows within each sitting, as the machine's speed differs between them.  The median over sittings."""
    return statistics.median(statistic(*map(statistics.median, sitting)) for sitting in zip(*data))


def median(sittings):
    return estimate([sittings], lambda figure: figure)


def interval(data, statistic=lambda figure: figure, times=400):
    """95 % of a bootstrap of an estimate.  Resamples sittings, the same of all rows, and values in each."""
    choose = random.Random(1).choices
    found = []
    for _ in range(times):
        sittings = choose(list(zip(*data)), k=min(map(len, data)))
        picked = [[choose(row, k=len(row)) for row in sitting] for sitting in sittings]
        found.append(estimate(zip(*picked), statistic))
    found.sort()
    return found[times // 40], found[-1 - times // 40]


class Page:
    """The lines of the page.  `figures`: by name and metric, the median and the ends of its interval; `cpus`: the
    machine's."""

    def __init__(self, figures, cpus=0):
        self.figures, self.cpus, self.shown = figures, cpus, {}
        self.small, self.large = ("64MiB", "4GiB") if ("fork/arena/4GiB", "time_ns") in figures else ("4MiB", "16MiB")
        self.lines = []

    def sized(self, text):
        return text.replace("LARGE", self.large).replace("SMALL", self.small)

    def get(self, name, metric="time_ns"):
        if (key := (self.sized(name), metric)) in self.figures:
            self.shown[key] = self.figures[key]
        return self.figures.get(key)

    def cell(self, name, metric="time_ns", nice=nice_time):
        if not (figure := self.get(name, metric)):
            return ""
        middle, low, high = figure
        return "~" * (high > 2 * low) + nice(middle)

    def pss(self, name, metric="pss_bytes"):
        return self.cell(name, metric, lambda count: f"{count / 2**20:,.0f} MiB")

    def table(self, header, rows):
        self.lines += ["", self.sized("| " + " | ".join(header) + " |"), "|" + "---|" * len(header)]
        self.lines += ["| " + " | ".join(row) + " |" for row in rows if any(row[1:])]

    def grid(self, rows, columns, cell):
        """A table of cell(row, column).  Rows and columns are dictionaries of their names."""
        self.table(["", *columns.values()], [(name, *(cell(row, column) for column in columns)) for row, name in rows.items()])

    def section(self, title, *text):
        self.lines += ["", f"## {title}", *text]

    def judge(self, claim):
        """Measured, as text, and the verdict: met if the whole interval keeps the limit, missed if none of it does."""
        if not (figure := self.get(claim.what, "claim")):
            return "both are lost in the noise", "close"
        middle, low, high = figure
        limit, margin = float(claim.limit.split()[-1]), 0.01 if claim.statistic == "ratio" else 0
        below, above = high * (1 + margin) <= limit, low * (1 - margin) >= limit
        met, missed = (below, above) if claim.limit.startswith("at most") else (above, below)
        return f"{middle:.3g} [{low:.3g}, {high:.3g}]", "met" if met else "missed" if missed else "close"


STATISTICS = {
    "ratio": lambda a, b: a / b,
    "value": lambda a: a,
    "added ns": lambda a, b: 1e9 * (a - b),
    # What an observer adds to what programs that do nothing add.
    "extra": lambda watched, none, empty: max(-99, min(99, (watched - none) / max(empty - none, 1e-9))),
}
Claim = collections.namedtuple("Claim", "what rows limit statistic unit metric", defaults=["ratio", "", "time_ns"])
# Why a claim is not met, by how the claim begins.
REASONS = {
    "free and allocate in a scope, against mimalloc": "`free()` looks up a block's size in a map of addresses; mimalloc finds it at the block's page.",
    "freeze() of objects in 4 KiB pages": "it maps each page anew, for reading alone; memcpy() gains more from fast memory.",
    "64 B": "each call also looks for a closed channel, for pollers and for sleepers, and says what its thread holds; the rest, "
            "moving cache lines from CPU to CPU, is *bare memory* below.",
    "a copied page": "cowtop looks up the mapping of each copy, and takes the stack of one in 64.",
    "a busy server's": "both CPUs are full, and cowtop takes its part of them while each worker copies 17,000 pages.",
    "CPU of cowtop": "each kind of look at 1,000 processes takes up to 1/800 of a CPU; samples and ended looks come on top.",
    "memory of": "some 20 MiB are pages of the program itself; the rest is what it keeps of 1,000 processes.",
}

_RIVALS = ("glibc", "jemalloc", "mimalloc")
_PAGES = (("4K", "4 KiB"), ("2M", "2 MiB"))
_THREADS = (1, 2, 4, 8, 16)  # as fill.cc has them
CLAIMS = [
    Claim("fork() with 4 GiB in an arena, against 64 MiB", "fork/arena/LARGE fork/arena/SMALL", "at most 1.3"),
    Claim("fork() with 4 GiB in an arena, against none", "fork/arena/LARGE fork/none", "at most 1.5"),
    Claim("a worker by `Start::fork`, 4 GiB in an arena, against fork() by hand without data",
          "start/fork/arena/LARGE start/bare_fork/none", "at most 1.5"),
    Claim("a worker by `Start::forkserver`, against the same", "start/forkserver/arena/LARGE start/bare_fork/none",
          "at most 2"),
    Claim("a worker by `Start::spawn`, 4 GiB in an arena, against posix_spawn() without data",
          "start/spawn/arena/LARGE start/posix_spawn/none", "at most 1.3"),
    *(Claim(f"free and allocate in a scope, against {rival}", f"churn/scope/4K/1 churn/{rival}/4K/1", "at most 1.053")
      for rival in _RIVALS),
    Claim("share of an arena that is in 2 MiB pages after freeze()", "freeze/objects/2M", "at least 99.9", "value", "%", "huge_percent"),
    *(Claim(f"freeze() of objects in {size} pages, against memcpy() of as many bytes",
            f"freeze/objects/{pages} freeze/memcpy/{pages}", "at most 1") for pages, size in _PAGES),
    Claim("use of a `Ref`, beyond a raw pointer's", "deref/ref deref/raw", "at most 1", "added ns", "ns", "use_s"),
    Claim("64 B by `Channel` of values, against Boost's message_queue",
          "channel/rate_64B_blocks/values channel/rate_64B_blocks/boost_queue", "at most 0.333"),
    *(Claim(f"64 B {how} by `Channel` of values, against Boost's spsc_queue (for one sender and one receiver), all spin",
            f"channel/{row}_64B_spins/values channel/{row}_64B_spins/boost_spsc", "at most 1.05")
      for row, how in (("rate", "one way"), ("trip", "there and back"))),
    Claim("1 MiB by `Channel<Bytes>`, against a socketpair", "channel/rate_1MiB_blocks/channel channel/rate_1MiB_blocks/socketpair",
          "at most 1"),
    Claim("wake a sleeping receiver by `Channel`, against a bare futex", "channel/wake_64B/channel channel/wake_64B/bare",
          "at most 1.1"),
    Claim("a copied page: what cowtop adds, against what empty BPF programs add",
          "measuring/copy/cowtop measuring/copy/none measuring/copy/empty_probes", "at most 1.5", "extra"),
    Claim("a busy server's requests a second, watched by cowtop, against unwatched", "server/busy/cowtop server/busy/none",
          "at least 0.99", metric="requests_s"),
    Claim("the time of 99 % of its answers, against the same", "server/busy/cowtop server/busy/none", "at most 1.05"),
    *(Claim(f"{metric.split('_')[0].replace('cpu', 'CPU')} of {name}, 1,000 processes {what}", f"own_cost/{state}/{command}",
            f"at most {limit}", "value", unit, metric)
      for metric, unit, limits in (("cpu_percent", "%", (1, 1, 2)), ("memory_mib", "MiB", (32, 32, 32)))
      for state, what in (("idle", "asleep"), ("copying", "that copy 10 pages a second"))
      for (command, name), limit in zip((("watch", "cowtop"), ("record", "cowtop record"), ("live", "the live view")), limits)
      if (state, metric) != ("idle", "memory_mib") and (metric == "cpu_percent" or command == "record")
      and (state, command) != ("idle", "live")),
    Claim("the census of 16 processes of 300 MiB: CPU", "census/all", "at most 2", "value", "s", "cpu_s"),
    *(Claim(f"8 Pythons that read a list, {how}: all memory (PSS), against a plain fork", f"pool/{way} pool/plain", "at most 0.25",
            metric="pss_bytes") for way, how in (("frozen", "after `cowshed.freeze()`"), ("undo", "by `cowshed run --undo`"))),
    Claim("start of a Python program by `cowshed run --warm`, against an exec", "warm/warm warm/plain", "at most 0.3"),
]

METHODS = {"fork": "`Start::fork`", "forkserver": "`Start::forkserver`", "spawn": "`Start::spawn`",
           "bare_fork": "fork()", "vfork": "vfork() and exec", "posix_spawn": "posix_spawn()",
           "thread": "std::thread", "python_fork": "Python, fork", "python_forkserver": "Python, forkserver",
           "python_spawn": "Python, spawn"}
MEMORIES = {"arena": "arena", "memfd": "memfd", "shared_memory": "Python shared_memory", "heap": "heap",
            "settled": "heap, settled", "huge": "heap, 2 MiB pages", "list": "list"}
WAYS = {"channel": "`Channel<Bytes>`", "values": "`Channel` of values", "pipe": "pipe, 1 MiB",
        "socketpair": "socketpair", "boost_queue": "Boost message_queue", "boost_spsc": "Boost spsc_queue",
        "zeromq": "ZeroMQ, ipc", "bare": "bare memory and futex", "python_pipe": "Python Pipe",
        "python_simple_queue": "Python SimpleQueue", "python_queue": "Python Queue"}
HOLDINGS = {"none": "nothing", "mapped/SMALL": "mapped SMALL", "mapped/LARGE": "mapped LARGE", "heap/SMALL": "heap SMALL",
            "heap/LARGE": "heap LARGE", "huge/SMALL": "heap SMALL, 2 MiB pages", "huge/LARGE": "heap LARGE, 2 MiB pages",
            "none/beside_threads": "nothing, threads",
            "mapped/LARGE/beside_threads": "mapped LARGE, threads"}
OBSERVERS = {"none": "unwatched", "empty_probes": "empty BPF programs",
             "cowtop": "cowtop", "perf": "perf", "bpftrace": "bpftrace"}


def short(page):
    """The README's rows: what, before, after."""
    fork = [page.cell(f"fork/{memory}/LARGE") for memory in ("heap", "huge", "memfd", "arena")]
    trip = "channel/trip_64B_spins/"
    return [
        ("HTTP server, 4 workers: all memory (PSS)", page.pss("server/http/before"), page.pss("server/http/after")),
        ("64 MiB of `shared_ptr`s' objects, 8 workers that copy each pointer and read: all memory (PSS)",
         page.pss("memory/objects/heap_shared_ptr/8"),
         f"{page.pss('memory/objects/heap_immortal_ptr/8')} with `ImmortalPtr`; "
         f"{page.pss('memory/objects/arena_immortal_ptr/8')} with it in an arena"),
        ("A Python pool, 8 workers that read a list of 64 MiB: all memory (PSS)", page.pss("pool/plain"),
         f"{page.pss('pool/frozen')} after `cowshed.freeze()`; {page.pss('pool/undo')} by `cowshed run --undo`"),
        ("A Python program starts, imports and ends", page.cell("warm/plain"), f"`cowshed run --warm` {page.cell('warm/warm')}"),
        ("`fork()` with 4 GiB of data", f"{fork[0]}; {fork[1]} in 2 MiB heap pages; {fork[2]} in a memfd by hand",
         f"{fork[3]} in an arena"),
        ("64 B to another process and back, both spin", f"pipe {page.cell(trip + 'pipe')}; Boost's spsc_queue {page.cell(trip + 'boost_spsc')}",
         f"`Channel` of values {page.cell(trip + 'values')}"),
        ("**A loss** to mimalloc: free and allocate a small block",
         "; ".join(f"{rival} {page.cell(f'churn/{rival}/4K/1')}" for rival in _RIVALS),
         f"malloc in an `ArenaScope` {page.cell('churn/scope/4K/1')}"),
    ]


def too_many_threads(cpus):
    """Names the thread counts that a machine of so many CPUs does not run; empty if it runs all."""
    if above := [str(threads) for threads in _THREADS if threads > max(cpus, 2)]:
        return f"Not measured: {', '.join(above)} threads. This machine has {cpus} CPUs."
    return ""


def machine():
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    thp = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="utf-8").strip()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=pathlib.Path(__file__).parent, check=False,
                            stdout=subprocess.PIPE, text=True).stdout.strip()
    return (f"{re.search(r'model name.*: (.*)', text)[1]}, {len(os.sched_getaffinity(0))} CPUs, {memory:.0f} GiB, Linux "
            f"{re.match(r'[0-9.]+', platform.release())[0].rstrip('.')}, glibc {platform.libc_ver()[1]}, THP `{thp}`, "
            f"commit {commit}")


def add_claims(page):
    page.section("What is claimed", "A claim is *met* if the whole interval keeps the limit, *missed* if none of it does, else *close*.",
                 "*Against* means a ratio, mostly of times; within 1 % of its limit it is also close. 1.053 is 95 % of the other's",
                 "speed. An interval is 95 % of a bootstrap over the sittings: of two or three, hardly more than their range. What a",
                 "claim compares takes further turns until that is narrow, for ten minutes in all.")
    page.table(["claim", "limit", "measured", "verdict"],
               [(claim.what, f"{claim.limit} {claim.unit}".strip(), *page.judge(claim)) for claim in CLAIMS])
    open_claims = [claim.what for claim in CLAIMS if page.judge(claim)[1] != "met"]
    page.lines += ["", "Why some are not met:", ""] if open_claims else []
    page.lines += [f"* *{begin}*: {reason}" for begin, reason in REASONS.items() if any(what.startswith(begin) for what in open_claims)]


def start_row(page, method, holding):
    mapped = next((m for m in ("memfd", "shared_memory") if page.get(f"start/{method}/{m}/SMALL")), "arena")
    return f"start/{method}/{holding}".replace("mapped", mapped)


def add_settle(page):
    page.section("settle", "A heap before and after `settle()`: the call fork(); a forked worker's start; what `settle()` takes; the page",
                 "tables of 64 children that read nothing; a child's first read of a word in each page; and the parent's writes",
                 "to a word in each page afterwards, twice. In a settled heap the first write copies the page.")
    columns = {"fork": "fork()", "start/bare_fork": "start", "move_ns": "settle()", "page_table_bytes": "page tables of 64",
               "time_ns": "first read", "first_write_ns": "first write", "second_write_ns": "second write"}

    def cell(row, column):
        if "_" not in column or "/" in column:
            return page.cell(f"{column}/{row}")
        if column == "move_ns" and row.startswith("heap"):
            return ""
        return (page.pss if column == "page_table_bytes" else page.cell)(f"settle/{row}", column)

    page.grid({f"{way}/{size}": page.sized(f"{name}, {size}") for size in ("SMALL", "LARGE")
               for way, name in (("heap", "heap"), ("settled", "settled"), ("settled_huge", "settled, 2 MiB pages"))},
              columns, cell)


def add_start(page):
    page.section("fork", f"The call in the parent, which holds one array. Without data it takes {page.cell('fork/none')}.")
    page.grid(MEMORIES, {"SMALL": "SMALL", "LARGE": "LARGE"}, lambda *at: page.cell("fork/{}/{}".format(*at)))
    if page.get("settle/settled/SMALL"):
        add_settle(page)
    page.section("start", "From the call until the worker has answered a question about the data and has been reaped. In",
                 "brackets: until its first line. *Heap*: `fork` inherits it. Other workers get a copy, through a pipe, as an",
                 "argument or pickled; more than 1 GiB is left out. *Mapped*: an arena, a memfd, both in 2 MiB pages, or Python's",
                 "`shared_memory`. *Threads*: beside 32 threads that wake up each millisecond; `Start::fork` refuses that.")

    def times(method, holding):
        row = start_row(page, method, holding)
        return f"{page.cell(row)} ({page.cell(row, 'begun_ns')})" if page.get(row) else ""

    page.lines += ["", "![a worker's start](start.svg)"]
    page.grid(METHODS, HOLDINGS, times)
    page.section("memory", "PSS of all processes once each worker has read all the data, and the time from the first start until",
                 "then. Page tables are not in PSS: with 64 workers and 4 GiB in an arena they take "
                 f"{page.pss('memory/fork/arena/LARGE/64', 'page_table_bytes')}. The row that happens to read a holder's 4 GiB first may take much longer than the others.")
    shown = ["fork/arena/SMALL", "bare_fork/memfd/SMALL", "bare_fork/heap/SMALL",
             "posix_spawn/memfd/SMALL", "posix_spawn/heap/SMALL", "python_fork/list/SMALL", "python_spawn/list/SMALL", "python_fork/shared_memory/SMALL",
             "fork/arena/LARGE", "forkserver/arena/LARGE", "spawn/arena/LARGE", "bare_fork/memfd/LARGE",
             "bare_fork/huge/LARGE", "thread/heap/LARGE"]
    names = {}
    for row in shown:
        method, memory, size = row.split("/")
        names[f"memory/{row}/"] = page.sized(f"{METHODS[method]}, {MEMORIES[memory]} {size}")
    page.grid(names, {"1": "1 worker", "8": "8 workers", "64": "64 workers"},
              lambda *at: f"{page.pss(''.join(at))}, {page.cell(''.join(at))}" if page.get("".join(at)) else "")


POOLS = {"plain": "fork()", "gc_freeze": "gc.freeze()", "frozen": "`cowshed.freeze()`", "settled": "`cowshed.freeze(settle=True)`",
         "undo": "`cowshed run --undo`", "merge": "KSM, by `cowshed run --merge`"}


def add_programs(page):
    page.section("Python", "A pool of 8 workers that read each string of a list of 64 MiB: the time until all have, and all memory (PSS) once",
                 "it has stopped to fall. KSM looks at 5,000 pages each 20 ms. *Starts*: a program that imports asyncio, decimal, email,",
                 "http.client, json, sqlite3 and unittest, until it has ended; and all memory while 8 of it wait.")
    page.grid({f"pool/{way}": name for way, name in POOLS.items()}, {"pss_bytes": "memory", "time_ns": "time"},
              lambda row, metric: (page.pss if metric == "pss_bytes" else page.cell)(row, metric))
    page.grid({"plain": "an exec", "warm": "`cowshed run --warm`"}, {"time_ns": "a start", "pss_bytes": "memory of 8"},
              lambda way, metric: (page.pss if metric == "pss_bytes" else page.cell)(f"warm/{way}", metric))


def add_others(page):
    page.section("fill", "Nanoseconds that one thread takes to free and allocate a block of 16 to 128 bytes (*churn*), or to allocate and",
                 "write one (*fill*), in a fresh process of 1 to 16 threads. If an allocator scales, its figure does not grow with the",
                 "threads. They fill 128 MiB, or 32 MiB each if that is more. Arena: `Arena::allocate()`; scope: malloc in an",
                 "`ArenaScope`. 2 MiB pages: `MALLOC_CONF=thp:always`, `MIMALLOC_LARGE_OS_PAGES=1` with",
                 "`MIMALLOC_EAGER_COMMIT_DELAY=0`, `glibc.malloc.hugetlb=1` with `glibc.malloc.top_pad=33554432`. Each run checks that",
                 "the filled memory is new and lies in these pages.",
                 *filter(None, [too_many_threads(page.cpus)]))
    page.grid({f"{pattern}/{{}}/{pages}/{threads}": f"{pattern}, {pages}, {threads} thread{'s' * (threads > 1)}"
               for pattern, pages in (("churn", "4K"), ("fill", "4K"), ("fill", "2M")) for threads in _THREADS},
              {way: way for way in ("arena", "scope", "glibc", "jemalloc", "mimalloc")},
              lambda row, way: page.cell(row.format(way), nice="{:.3g}".format))
    page.section("freeze", "Of small objects, per GiB.")
    page.grid({"objects": "freeze()", "memcpy": "memcpy()"}, {"2M": "2 MiB pages", "4K": "4 KiB pages"},
              lambda *at: page.cell("freeze/{}/{}".format(*at)))
    page.section("deref", "One use of one of 256 objects, and a step from one to the next.")
    page.grid({"": "one use", "_chain": "a step of a chain"}, {"raw": "raw pointer", "ref": "`Ref`"},
              lambda chain, how: page.cell(f"deref/{how}{chain}", "use_s", lambda s: nice_time(1e9 * s)))
    page.section("channel", "Between processes on CPUs of their own; a first turn compares every byte. *Blocks*: calls that sleep if they",
                 "must (a channel spins before it sleeps); *spins*: calls that return at once, again and again. *Rate*: time a",
                 "message; *trip*: there and back, median; *woken*: from the send until a receiver that slept has it. ZeroMQ: PUSH",
                 "and PULL, which may queue 100,000 messages of 64 B, Boost and channels 1,024; its own thread shares the CPU.")
    columns = {"rate_64B_blocks": "64 B rate, blocks", "rate_64B_spins": "64 B rate, spins", "rate_1MiB_blocks": "1 MiB rate",
               "trip_64B_blocks": "64 B trip, blocks", "trip_64B_spins": "64 B trip, spins", "trip_1MiB_blocks": "1 MiB trip",
               "wake_64B": "woken"}
    page.lines += ["", "![a message's time](channel.svg)"]
    page.grid(WAYS, columns, lambda way, column: page.cell(f"channel/{column}/{way}"))
    if page.get("channel/by_1/1_1"):
        many = max(2, min(15, page.cpus - 1))  # as channel.cc has it
        page.section("channel, many processes", "Messages of 64 B a second through one `Channel` of values, of all senders together. Each sender and each",
                     f"receiver is a process, and its calls sleep if they must. If there are more than {page.cpus} processes, they share CPUs.")
        page.grid({"1_1": "1 → 1", "2_2": "2 → 2", "4_4": "4 → 4", "1_N": f"1 → {many}", "N_1": f"{many} → 1"},
                  {"1": "one by one", "64": "in batches of 64"},
                  lambda crowd, batch: page.cell(f"channel/by_{batch}/{crowd}", nice=lambda ns: f"{1e3 / ns:.3g} million"))
    page.section("measuring", "Time of a copied page in the watched process; of the first touch of a page by another process; and of a",
                 "round without faults. perf: `perf record -e page-faults -c 1`; bpftrace: it counts page faults. The last",
                 "two columns are of the first six seconds of two new workers of gunicorn under wrk, which copy most of what",
                 "they share. The claimed CPU and memory are of three commands at once, for 30 s from the 40th second on.")
    page.grid(OBSERVERS, {("measuring/copy/{}",): "copy", ("measuring/touch/{}",): "touch beside", ("measuring/compute/{}",): "no faults",
                          ("server/busy/{}", "requests_s", "{:,.0f}".format): "requests a second",
                          ("server/busy/{}",): "99 % answered in"},
              lambda kind, column: page.cell(column[0].format(kind), *column[1:]))


def add_noise(page):
    page.section("noise", "The same benchmark once more in the same run: its figure, divided by the first. The eight with the widest interval:")
    widths = {name: figure[2] - figure[1] for (name, metric), figure in page.figures.items() if metric == "again"}
    again = sorted(sorted(widths, key=widths.get)[-8:])
    page.table(["", "again", "interval"],
               [(name, f"{middle:.3g}", f"[{low:.3g}, {high:.3g}]")
                for name in again for middle, low, high in [page.get(name, "again")]])


def charts(page):
    def series(names, keys, row_of=lambda row, key: row.format(key)):
        return {page.sized(name): {key: page.get(row_of(row, key)) for key in keys} for name, row in names.items()}

    return {
        "start.svg": chart("A worker's start, answer and end, by what its parent holds", METHODS,
                           series({HOLDINGS[holding]: holding for holding in ("none", "mapped/LARGE", "heap/SMALL", "heap/LARGE")},
                                  METHODS, lambda holding, method: start_row(page, method, holding))),
        "channel.svg": chart("Time of a message", WAYS, series(
            {"64 B, rate": "channel/rate_64B_blocks/{}", "64 B, there and back": "channel/trip_64B_spins/{}",
             "64 B, to a sleeper": "channel/wake_64B/{}", "1 MiB, rate": "channel/rate_1MiB_blocks/{}"}, WAYS)),
    }


def make(figures):
    """The texts of the page and of the plots, by file, and the figures in them."""
    where = next(metric for name, metric in figures if name == "machine")
    page = Page(figures, int(re.search(r"(\d+) CPUs", where)[1]))
    page.get("machine", where)
    page.lines = ["# Performance", "", f"`./tools/bench` made this page and its plots. The machine: {where}.",
                  "Take the ratios: times differ between machines. A family's rows take turns, in two or three sittings that are minutes",
                  "apart; Python's take turns of their own; the HTTP server runs once. Figures are medians. ~ marks one whose interval's",
                  "ends are more than a factor of two apart. [results.csv](../testing.md#measure-for-a-release) of a release has all",
                  "values.", "", "## In short"]
    if page.small == "4MiB":
        page.lines += ["", "Tiny sizes: nothing here says how fast anything is."]
    page.table(["", "by other means", "with Cowshed"], short(page))
    add_claims(page)
    add_start(page)
    add_programs(page)
    add_others(page)
    add_noise(page)
    return {"performance.md": "\n".join(page.lines) + "\n", **charts(page)}, page.shown


def write_csv(results, out):
    """`values`: those of a sitting between spaces, sittings between semicolons."""
    with open(out / "results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["benchmark", "metric", "median", "low", "high", "values"])
        writer.writerow(["machine", machine(), 0, 0, 0, 0])
        for (name, metric), sittings in sorted(results.items()):
            figures = [f"{figure:.5g}" for figure in (median(sittings), *interval([sittings]))]
            writer.writerow([name, metric, *figures, ";".join(" ".join(f"{x:.5g}" for x in s) for s in sittings)])


def read_csv(out):
    with open(out / "results.csv", encoding="utf-8", newline="") as file:
        return {(row["benchmark"], row["metric"]): [[float(x) for x in sitting.split()] for sitting in row["values"].split(";")]
                for row in csv.DictReader(file)}


def figures_of(results):
    """Of each row its median, of each claim what it compares, and of each row that was run again their ratio; and
    the ends of each one's interval."""
    def rows(names, metric):
        data = [results.get((name, metric)) for name in names.split()]
        if not all(data) or len({tuple(map(len, sittings)) for sittings in data}) > 1:
            raise ValueError(f"not all of {names} was measured: this CSV makes no page")
        return data

    def figure(data, statistic=lambda one: one):
        rounded = [float(f"{x:.6g}") for x in (estimate(data, statistic), *interval(data, statistic))]
        return [int(x) if x.is_integer() else x for x in rounded]

    figures = {key: figure([sittings]) for key, sittings in results.items()}
    sized = Page(figures).sized
    for claim in CLAIMS:
        data = rows(sized(claim.rows), claim.metric)
        lost = claim.statistic == "extra" and interval(data[1:], lambda none, empty: empty - none)[0] <= 0
        figures[claim.what, "claim"] = None if lost else figure(data, STATISTICS[claim.statistic])
    for name, metric in results:
        if "_again" in name and metric == "time_ns":
            first = name.replace("_again", "")
            figures[first, "again"] = figure(rows(f"{name} {first}", metric), STATISTICS["ratio"])
    return figures


def undecided(results):
    """The rows of claims that are close because their interval is wide, and of all that share a row with one of them."""
    page = Page(figures_of(results))
    wide = set()
    for claim in CLAIMS:
        _, low, high = page.get(claim.what, "claim") or (0, 0, math.inf)
        if page.judge(claim)[1] == "close" and high - low > 0.05 * float(claim.limit.split()[-1]):
            wide.update(page.sized(claim.rows).split())
    for _ in CLAIMS:
        wide.update(*(rows for claim in CLAIMS if not wide.isdisjoint(rows := page.sized(claim.rows).split())))
    return wide.union(name for name, _ in results if "_again" in name and name.replace("_again", "") in wide)


def write_figures(figures, out):
    """A line for the names with the same beginning, of a metric; in it, the figures by the rest of the names."""
    lines = {}
    for (name, metric), figure in figures.items():
        first, rest = re.fullmatch(r"([^/]*(?:/[^/]+(?=/))?)/?(.*)", name).groups()
        lines.setdefault((first, metric), {})[rest] = figure
    texts = [json.dumps([*line, found], ensure_ascii=False) for line, found in lines.items()]
    (out / "figures.json").write_text("[" + ",\n".join(texts) + "]\n", encoding="utf-8")


def read_figures(out):
    return {("/".join(filter(None, (first, rest))), metric): figure
            for first, metric, found in json.loads((out / "figures.json").read_text(encoding="utf-8"))
            for rest, figure in found.items()}


def write(out):
    made, shown = make(figures_of(read_csv(out)))
    write_figures(shown, out)
    for name, text in made.items():
        (out / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
