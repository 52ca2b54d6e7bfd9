#!/usr/bin/env python3
"""Statistics of the results, what the project claims, and the page and plots that show it.
page.py FOLDER makes them again from FOLDER/results.csv."""
import collections
import csv
import os
import pathlib
import platform
import random
import re
import statistics
import subprocess
import sys


def estimate(data, statistic):
    """Compares rows within each sitting, as the machine's speed differs between sittings.  The median over sittings."""
    return statistics.median(statistic(*map(statistics.median, sitting)) for sitting in zip(*data))


def median(sittings):
    return estimate([sittings], lambda figure: figure)


def interval(data, statistic=lambda figure: figure, times=400):
    """95 % interval of an estimate by bootstrap.  Resamples sittings, the same of all rows, and values in each."""
    choose = random.Random(1).choices
    found = []
    for _ in range(times):
        sittings = choose(list(zip(*data)), k=min(map(len, data)))
        picked = [[choose(row, k=len(row)) for row in sitting] for sitting in sittings]
        found.append(estimate(zip(*picked), statistic))
    found.sort()
    return found[times // 40], found[-1 - times // 40]


def nice_time(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


class Page:
    """The lines of the page."""

    def __init__(self, results):
        self.results = results
        self.small, self.large = ("64MiB", "4GiB") if ("fork/arena/4GiB", "time_ns") in results else ("4MiB", "16MiB")
        self.lines = []

    def get(self, name, metric="time_ns"):
        return self.results.get((name.replace("LARGE", self.large).replace("SMALL", self.small), metric))

    def cell(self, name, metric="time_ns", nice=nice_time):
        return nice(median(sittings)) if (sittings := self.get(name, metric)) else ""

    def pss(self, name, metric="pss_bytes"):
        return self.cell(name, metric, lambda count: f"{count / 2**20:,.0f} MiB")

    def table(self, header, rows):
        self.lines += ["", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        self.lines += ["| " + " | ".join(row) + " |" for row in rows if any(row[1:])]

    def grid(self, rows, columns, cell):
        """A table of cell(row, column).  Rows and columns are dictionaries of their names."""
        self.table(["", *columns.values()], [(name, *(cell(row, column) for column in columns)) for row, name in rows.items()])

    def section(self, title, *text):
        self.lines += ["", f"## {title}", *text]

    def judge(self, claim):
        """Measured, low, high and verdict: met if the whole interval keeps the limit, missed if none of it does."""
        data = [self.get(row, claim.metric) for row in claim.rows.split()]
        if not all(data):
            return None
        # The control is the same once more: its spread is the noise.
        again = [self.get(row + "_again", claim.metric) for row in claim.rows.split()]
        data = [[a + b for a, b in zip(*rows)] if all(rows) else rows[0] for rows in zip(data, again)]
        statistic, limit = STATISTICS[claim.statistic], float(claim.limit.split()[-1])
        figure, (low, high) = estimate(data, statistic), interval(data, statistic)
        if claim.statistic == "extra" and interval(data[1:], lambda none, empty: empty - none)[0] <= 0:
            low, high = min(low, limit), max(high, limit)  # the base is lost in the noise
        margin = 0.01 if claim.statistic == "ratio" else 0
        below, above = high * (1 + margin) <= limit, low * (1 - margin) >= limit
        met, missed = (below, above) if claim.limit.startswith("at most") else (above, below)
        return figure, low, high, "met" if met else "missed" if missed else "close"


STATISTICS = {
    "ratio": lambda a, b: a / b,
    "value": lambda a: a,
    "added ns": lambda a, b: 1e9 * (a - b),
    # What an observer adds to what programs that do nothing add.
    "extra": lambda watched, none, empty: max(-99, min(99, (watched - none) / max(empty - none, 1e-9))),
}
Claim = collections.namedtuple("Claim", "what rows limit why statistic unit metric",
                               defaults=["ratio", "", "time_ns"])

_FORK = "The time of one fork() varies more than the data changes it."
_START = ("`start()` also opens a pidfd, and brings back a value or an exception. A forkserver is two more processes "
          "to wake. A spawned worker maps the arenas and checks them.")
_FILL = ("An arena's memory is a memfd's: the kernel takes longer to fault it in, and allocates it at once so that no "
         "SIGBUS comes later. One lock guards an arena's extents.")
_REF = "A use checks the object's slot."
_SERVER = "It spends most in its first seconds, and here wrk, two workers and cowtop share two CPUs."
_OWN = "It makes as many system calls on a machine where each takes ten times as long."
_CHURN = {"glibc": "glibc's fast bins take fewer instructions for small blocks.",
          "jemalloc": "The scope asks for the thread's arena at each call.",
          "mimalloc": "mimalloc's free lists by page take fewer instructions than jemalloc's, which an arena uses."}
CLAIMS = [
    Claim("fork() with 4 GiB in an arena: time to that with 64 MiB", "fork/arena/LARGE fork/arena/SMALL", "at most 1.3", _FORK),
    Claim("fork() with 4 GiB in an arena: time to that without data", "fork/arena/LARGE fork/none", "at most 1.5", _FORK),
    Claim("a worker by `Start::fork`, arena of 4 GiB: time to a bare fork without data",
          "start/fork/arena/LARGE start/bare_fork/none", "at most 1.5", _START),
    Claim("a worker by `Start::forkserver`, arena of 4 GiB: the same",
          "start/forkserver/arena/LARGE start/bare_fork/none", "at most 2", _START),
    Claim("a worker by `Start::spawn`, arena of 4 GiB: time to posix_spawn() without data",
          "start/spawn/arena/LARGE start/posix_spawn/none", "at most 1.3", _START),
    *(Claim(f"free and allocate in a scope: time to {rival}", f"churn/scope/4K/1 churn/{rival}/4K/1", "at most 1.053", why)
      for rival, why in _CHURN.items()),
    *(Claim(f"fill by two threads in a scope: time to {rival}, {pages} pages",
            f"fill/scope/{pages}/2 fill/{rival}/{pages}/2", "at most 1.053", _FILL)
      for rival in _CHURN for pages in ("4K", "2M")),
    Claim("bytes of an arena in 2 MiB pages after freeze()", "freeze/objects/2M", "at least 99.9",
          "The kernel had no free 2 MiB page.", "value", "% of the bytes", "huge_percent"),
    Claim("freeze() of objects: time to memcpy() of as many bytes", "freeze/objects/2M freeze/memcpy/2M", "at most 1",
          "freeze() walks through the arena's extents."),
    Claim("use of a `Ref`: added to a raw pointer's", "deref/ref deref/raw", "at most 1", _REF, "added ns", "ns", "use_s"),
    Claim("a step along a chain of `Ref`s: the same", "deref/ref_chain deref/raw_chain", "at most 1", _REF, "added ns", "ns", "use_s"),
    Claim("64 B by `Channel` of values: time to Boost's message_queue",
          "channel/rate_64B_blocks/values channel/rate_64B_blocks/boost_queue", "at most 0.333",
          "Each message moves two cache lines between the CPUs; Boost's mutex stays on one side for many messages."),
    Claim("64 B by `Channel` of values: time to Boost's spsc_queue, all spin",
          "channel/rate_64B_spins/values channel/rate_64B_spins/boost_spsc", "at most 1",
          "spsc_queue is for one sender and one receiver, never sleeps, and does not survive a killed process."),
    Claim("1 MiB by `Channel<Bytes>`: time to a socketpair",
          "channel/rate_1MiB_blocks/channel channel/rate_1MiB_blocks/socketpair", "at most 1",
          "The receiver maps the pages, 256 faults or one call a message; a socket copies from cache to cache."),
    Claim("wake a sleeping receiver by `Channel`: time to a bare futex", "channel/wake_64B/channel channel/wake_64B/bare",
          "at most 1.1", "A channel's messages are numbered and survive a killed process."),
    Claim("a copied page: added by cowtop to added by empty BPF programs",
          "measuring/copy/cowtop measuring/copy/none measuring/copy/empty_probes", "at most 1.5",
          "A copy's time varies by more than empty programs add to it.", "extra"),
    Claim("a process without faults, watched by cowtop: time to unwatched",
          "measuring/compute/cowtop measuring/compute/none", "at most 1.05", "It shares its CPU with cowtop."),
    Claim("a busy server, watched by cowtop: requests a second to unwatched", "server/busy/cowtop server/busy/none",
          "at least 0.99", _SERVER, metric="requests_s"),
    Claim("the same: time of 99 % of its answers to unwatched", "server/busy/cowtop server/busy/none", "at most 1.01", _SERVER),
    *(Claim(f"CPU of {name}, {what}", f"own_cost/{state}/{command}", f"at most {limit}", _OWN, "value", "%", "cpu_percent")
      for state, what in (("idle", "1,000 processes asleep"), ("copying", "1,000 that copy 10 pages a second"))
      for command, name, limit in (("watch", "cowtop", 1), ("record", "cowtop record", 1), ("live", "the live view", 6))),
    *(Claim(f"memory of {name}, 1,000 that copy 10 pages a second", f"own_cost/copying/{command}", "at most 32",
            "It keeps what it has read of each process.", "value", "MiB", "memory_mib")
      for command, name in (("watch", "cowtop"), ("record", "cowtop record"), ("live", "the live view"))),
]

METHODS = {"fork": "`Start::fork`", "forkserver": "`Start::forkserver`", "spawn": "`Start::spawn`",
           "bare_fork": "fork()", "vfork": "vfork() and exec", "posix_spawn": "posix_spawn()",
           "thread": "std::thread", "python_fork": "Python, fork", "python_forkserver": "Python, forkserver",
           "python_spawn": "Python, spawn"}
MEMORIES = {"arena": "arena", "memfd": "memfd", "shared_memory": "Python shared_memory", "heap": "heap",
            "huge": "heap, 2 MiB pages", "list": "list"}
WAYS = {"channel": "`Channel<Bytes>`", "values": "`Channel` of values", "pipe": "pipe, 1 MiB",
        "socketpair": "socketpair", "boost_queue": "Boost message_queue", "boost_spsc": "Boost spsc_queue",
        "zeromq": "ZeroMQ, ipc", "bare": "bare memory and futex", "python_pipe": "Python Pipe",
        "python_simple_queue": "Python SimpleQueue", "python_queue": "Python Queue"}
OBSERVERS = {"none": "unwatched", "none_again": "unwatched, again", "empty_probes": "empty BPF programs",
             "cowtop": "cowtop", "perf": "perf", "bpftrace": "bpftrace"}


def short(page):
    """The README's rows: what, before, after."""
    before, after = (f"{page.pss(f'server/http/{v}')}, {page.pss(f'server/http/{v}', 'peak_pss_bytes')} at its peak"
                     for v in ("before", "after"))
    fork = [page.cell(f"fork/{memory}/LARGE") for memory in ("heap", "huge", "arena")]
    trip = "channel/trip_64B_"
    return [
        ("HTTP server, 4 workers: all memory (PSS)", before, after),
        ("64 MiB of `shared_ptr`s' objects, 8 workers that read them: all memory (PSS)",
         page.pss("memory/objects/heap_shared_ptr/8"),
         f"{page.pss('memory/objects/arena_immortal_ptr/8')} with `ImmortalPtr` in an arena"),
        ("`fork()` with 4 GiB of data", f"{fork[0]}; {fork[1]} in 2 MiB heap pages", fork[2]),
        ("64 B to another process and back", f"pipe {page.cell(trip + 'blocks/pipe')}",
         f"{page.cell(trip + 'spins/values')} if both spin; waking a sleeper takes {page.cell('channel/wake_64B/values')}"),
        ("**A loss:** free and allocate a small block", f"mimalloc {page.cell('churn/mimalloc/4K/1')}",
         f"malloc in an `ArenaScope` {page.cell('churn/scope/4K/1')}; glibc {page.cell('churn/glibc/4K/1')}"),
    ]


def machine():
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    thp = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="utf-8").strip()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=pathlib.Path(__file__).parent, check=False,
                            stdout=subprocess.PIPE, text=True).stdout.strip()
    return (f"{re.search(r'model name.*: (.*)', text)[1]}, {text.count('processor	')} CPUs, {memory:.0f} GiB, Linux "
            f"{re.match(r'[0-9.]+', platform.release())[0].rstrip('.')}, glibc {platform.libc_ver()[1]}, THP `{thp}`, "
            f"commit {commit}")


def add_claims(page):
    judged = [(claim, result) for claim in CLAIMS if (result := page.judge(claim))]
    page.section("What is claimed", "A claim is *met* if the whole 95 % interval keeps the limit, *missed* if none of it does,",
                 "else *close*. A ratio within 1 % of its limit is close. Bootstrap over sittings, and repetitions in them.")
    page.table(["claim", "limit", "measured", "verdict"],
               [(claim.what, f"{claim.limit} {claim.unit}".strip(),
                 f"{figure:.3g} [{low:.3g}, {high:.3g}]", verdict) for claim, (figure, low, high, verdict) in judged])
    whys = collections.defaultdict(list)
    for claim, (*_, verdict) in judged:
        if verdict != "met":
            whys[claim.why].append(f"{claim.what} ({verdict})")
    page.lines += ["", "What is not met, and why:", "", *(f"* {'. '.join(what)}. {why}" for why, what in whys.items())]


def add_start(page):
    page.section("fork", "The call in the parent, which holds one array. Without data it takes "
                 f"{page.cell('fork/none')}, and once more {page.cell('fork/none_again')}.")
    page.grid(MEMORIES, {"SMALL": page.small, "LARGE": page.large}, lambda *at: page.cell("fork/{}/{}".format(*at)))
    page.section("start", "From the call until the worker has answered a question about the data and has been reaped. In",
                 "brackets: until its first line. *Heap*: `fork` inherits it. Other workers get a copy, through a pipe, as",
                 "an argument or pickled; more than 1 GiB is left out. *Mapped*: an arena, a memfd or `shared_memory`.",
                 "*Threads*: beside 32 threads that wake up each millisecond, without data; `Start::fork` refuses that.",
                 "`results.csv` has all holdings beside threads.")


    def times(method, holding):
        mapped = next((m for m in ("memfd", "shared_memory") if page.get(f"start/{method}/{m}/SMALL")), "arena")
        row = f"start/{method}/{holding}".replace("mapped", mapped)
        return f"{page.cell(row)} ({page.cell(row, 'begun_ns')})" if page.get(row) else ""

    page.grid(METHODS, {"none": "nothing", "mapped/SMALL": f"mapped {page.small}", "mapped/LARGE": page.large,
                        "heap/SMALL": f"heap {page.small}", "heap/LARGE": page.large,
                        "huge/LARGE": f"{page.large} in 2 MiB pages", "none/beside_threads": "threads"}, times)
    page.section("memory", "PSS of all processes once each worker has read all the data, and the time from the first start until",
                 "then. Page tables are not in PSS: with 64 workers and 4 GiB in an arena they take "
                 f"{page.pss('memory/fork/arena/LARGE/64', 'page_table_bytes')}.")
    shown = ["fork/arena/LARGE", "forkserver/arena/LARGE", "spawn/arena/LARGE", "bare_fork/memfd/SMALL",
             "bare_fork/heap/SMALL", "bare_fork/huge/LARGE", "thread/heap/LARGE", "posix_spawn/memfd/SMALL",
             "posix_spawn/heap/SMALL", "python_fork/list/SMALL", "python_spawn/list/SMALL", "python_fork/shared_memory/SMALL"]
    names = {}
    for row in shown:
        method, memory, size = row.replace("LARGE", page.large).replace("SMALL", page.small).split("/")
        names[f"memory/{row}/"] = f"{METHODS[method]}, {MEMORIES[memory]} {size}"
    page.grid(names, {"1": "1 worker", "8": "8 workers", "64": "64 workers"},
              lambda *at: f"{page.pss(''.join(at))}, {page.cell(''.join(at))}" if page.get("".join(at)) else "")
    shared, immortal, arena = (page.pss(f"memory/objects/{how}/8")
                               for how in ("heap_shared_ptr", "heap_immortal_ptr", "arena_immortal_ptr"))
    page.lines += ["", "The same of 64 MiB of objects behind pointers, which 8 forked workers copy as they read: `shared_ptr`",
                   f"on the heap {shared}, `ImmortalPtr` on the heap {immortal}, in an arena {arena}."]


def add_others(page):
    page.section("fill", "ns to free and allocate a block of 16 to 128 bytes (*churn*), or to allocate and write it (*fill*), by fresh",
                 "processes of 1 and 2 threads. Arena: `Arena::allocate()`; scope: malloc in an `ArenaScope`. 2 MiB pages:",
                 "`glibc.malloc.hugetlb=1`, `MALLOC_CONF=thp:always`, `MIMALLOC_LARGE_OS_PAGES=1`, checked.")
    page.grid({f"{pattern}/{{}}/{pages}/{threads}": f"{pattern}, {threads}, {pages}"
               for pattern in ("churn", "fill") for threads in (1, 2) for pages in ("4K", "2M")},
              {way: way for way in ("arena", "scope", "glibc", "jemalloc", "mimalloc")},
              lambda row, way: page.cell(row.format(way), nice="{:.3g}".format))
    page.section("freeze", "Of small objects, per GiB. *Collapsed*: `collapse()` of an arena in 4 KiB pages.")
    page.grid({"objects": "freeze()", "memcpy": "memcpy()"}, {"2M": "2 MiB pages", "4K": "4 KiB pages", "collapsed": "collapsed"},
              lambda *at: page.cell("freeze/{}/{}".format(*at)))
    page.section("deref", "One use of one of 256 objects, and a step from one to the next.")
    uses = {use: use for use in ("raw", "raw_again", "ref", "raw_chain", "ref_chain")}
    page.grid({"deref": "one use"}, uses, lambda *at: page.cell("/".join(at), "use_s", lambda s: nice_time(1e9 * s)))
    page.section("channel", "Between processes on CPUs of their own; every byte is compared first. *Blocks*: calls that sleep if they",
                 "must (a channel spins before it sleeps); *spins*: calls that return at once, again and again. *Rate*: time a",
                 "message; *trip*: there and back, median; *4 to 4*: four senders and receivers; *woken*: from the send until",
                 "a receiver that slept has it.")
    columns = {"rate_64B_blocks": "64 B rate, blocks", "rate_64B_spins": "spins", "rate_64B_4to4": "4 to 4",
               "rate_1MiB_blocks": "1 MiB rate", "trip_64B_blocks": "64 B trip, blocks", "trip_64B_spins": "spins",
               "trip_1MiB_blocks": "1 MiB trip", "wake_64B": "woken"}
    page.grid(WAYS, columns, lambda way, column: page.cell(f"channel/{column}/{way}"))
    page.section("measuring", "ns a page, in the watched process: a copy, the same where each page has a mapping of its own, and the",
                 "first touch of a page by another process; and a round without faults. perf: `perf record -e page-faults",
                 "-c 1`; bpftrace: it counts page faults. The last two columns are of the first six seconds of two new",
                 "workers of gunicorn under wrk, which copy most of what they share.")
    page.grid(OBSERVERS, {("measuring/copy/{}",): "copy", ("measuring/copy_in_many_mappings/{}",): "copy, many mappings",
                          ("measuring/touch/{}",): "touch beside", ("measuring/compute/{}",): "no faults",
                          ("server/busy/{}", "requests_s", "{:,.0f}".format): "requests a second",
                          ("server/busy/{}",): "99 % answered in"},
              lambda kind, column: page.cell(column[0].format(kind), *column[1:]))


def plot(page, out):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "cowshed"
    from matplotlib import pyplot

    def bars(title, unit, scale, groups, series):
        """`series`: by label, the row of each group; one that was not measured has no bar."""
        groups = {g: name for g, name in groups.items() if any(page.get(row.format(g)) for row in series.values())}
        figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
        for number, (label, row) in enumerate(series.items()):
            known = [(x, sittings) for x, group in enumerate(groups) if (sittings := page.get(row.format(group)))]
            at = [x + (number - len(series) / 2 + 0.5) * 0.8 / len(series) for x, _ in known]
            heights = [median(sittings) * scale for _, sittings in known]
            spread = [interval([sittings]) for _, sittings in known]
            axes.bar(at, heights, 0.8 / len(series), label=label, error_kw={"elinewidth": 0.7},
                     yerr=[[y - low * scale for y, (low, _) in zip(heights, spread)],
                           [high * scale - y for y, (_, high) in zip(heights, spread)]])
        axes.set(title=title, ylabel=unit, yscale="linear" if unit == "ns" else "log", xticks=range(len(groups)))
        axes.set_xticklabels([name.replace("`", "") for name in groups.values()], rotation=20, ha="right")
        axes.legend(fontsize="small", framealpha=0.5)
        figure.savefig(out / f"{next(iter(series.values())).split('/')[0]}.svg", metadata={"Date": None})
        pyplot.close(figure)

    bars("Time of fork(), by the memory of the data", "µs", 1e-3, MEMORIES, {page.small: "fork/{}/SMALL", page.large: "fork/{}/LARGE"})
    bars("A worker's start, answer and end, by method and what its parent holds", "ms", 1e-6, METHODS,
         {"nothing": "start/{}/none", f"{page.large} in an arena": "start/{}/arena/LARGE",
          f"{page.small} on the heap": "start/{}/heap/SMALL", f"{page.large} on the heap": "start/{}/heap/LARGE"})
    bars("A message's time", "µs", 1e-3, WAYS,
         {"64 B, rate": "channel/rate_64B_blocks/{}", "64 B there and back, spinning": "channel/trip_64B_spins/{}",
          "woken": "channel/wake_64B/{}", "1 MiB, rate": "channel/rate_1MiB_blocks/{}"})
    bars("A page's time, by who watches", "ns", 1, OBSERVERS,
         {"copied by the watched process": "measuring/copy/{}", "touched by a process beside it": "measuring/touch/{}"})


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


def write(out):
    page = Page(read_csv(out))
    page.lines = ["# Performance", "", "`./tools/bench` made this page, `results.csv` and the plots. The machine: "
                  f"{next(metric for name, metric in page.results if name == 'machine')}.",
                  "Take the ratios: times differ between machines. All rows of a family take turns; figures are medians.",
                  "[results.csv](results.csv) has each row's 95 % interval and its values.", "", "## In short"]
    page.table(["", "before", "after"], short(page))
    add_claims(page)
    page.lines += ["", "![fork](fork.svg) ![start](start.svg) ![channel](channel.svg) ![measuring](measuring.svg)"]
    add_start(page)
    add_others(page)
    (out / "performance.md").write_text("\n".join(page.lines) + "\n", encoding="utf-8")
    plot(page, out)


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
