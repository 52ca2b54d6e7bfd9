#!/usr/bin/env python3
"""Statistics of the results, what the project claims, and the page and plots that show it.
page.py FOLDER makes them again from FOLDER/results.csv."""
import collections
import csv
import pathlib
import platform
import random
import re
import statistics
import subprocess
import sys

# A claim is met if the whole interval keeps the limit, missed if none of it does, else close.
# kind: ratio is a / b, value is a, added is a - b, and extra is what a adds to b against what
# `empty` programs add.
Claim = collections.namedtuple("Claim", "what kind a b most limit unit why metric")


def median(sittings):
    return statistics.median([value for sitting in sittings for value in sitting])


def bootstrap(data, statistic, times=400):
    """95 % interval of a statistic of several rows: resamples sittings, and values within them."""
    choose = random.Random(1).choices
    found = []
    for _ in range(times):
        picked = [[choose(s, k=len(s)) for s in choose(row, k=len(row))] for row in data]
        found.append(statistic(*map(median, picked)))
    found.sort()
    return found[times // 40], found[-1 - times // 40]


def interval(sittings):
    return bootstrap([sittings], lambda value: value)


def nice_time(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


def nice_bytes(count):
    return f"{count / 2**20:,.0f} MiB"


class Page:
    """The lines of the page."""

    def __init__(self, results):
        self.results = results
        self.small, self.large = ("64MiB", "4GiB") if ("fork/arena/4GiB", "time_ns") in results else ("4MiB", "16MiB")
        self.lines = []

    def get(self, name, metric="time_ns"):
        return self.results[name, metric] if (name, metric) in self.results else None

    def cell(self, name, metric="time_ns", nice=nice_time):
        sittings = self.get(name, metric)
        return nice(median(sittings)) if sittings else ""

    def table(self, header, rows):
        self.lines += ["", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
        self.lines += ["| " + " | ".join(row) + " |" for row in rows if any(row[1:])]

    def section(self, title, *text):
        self.lines += ["", f"## {title}", *text]

    def judge(self, claim):
        """Measured, low, high and verdict."""
        name, base = (row.replace("LARGE", self.large).replace("SMALL", self.small) for row in (claim.a, claim.b))
        metric = claim.metric
        data = [self.get(name, metric)]
        statistic = {"value": lambda a: a, "ratio": lambda a, b: a / b, "added": lambda a, b: 1e9 * (a - b),
                     "extra": lambda a, b, empty: max(-99, min(99, (a - b) / max(empty - b, 1e-9)))}[claim.kind]
        if claim.kind != "value":
            data.append(self.get(base, metric))
        if claim.kind == "extra":
            data.append(self.get(name.rsplit("/", 1)[0] + "/empty_probes", metric))
        if not all(data):
            return None
        value, (low, high) = statistic(*map(median, data)), bootstrap(data, statistic)
        if claim.kind == "extra" and bootstrap([data[2], data[1]], lambda e, n: e - n)[0] <= 0:
            low, high = min(low, claim.limit), max(high, claim.limit)  # the base is lost in the noise
        margin = 0.01 if claim.kind == "ratio" else 0
        met = high * (1 + margin) <= claim.limit if claim.most else low * (1 - margin) >= claim.limit
        missed = low * (1 - margin) > claim.limit if claim.most else high * (1 + margin) < claim.limit
        return value, low, high, "met" if met else "missed" if missed else "close"


def most(what, kind, a, b, limit, why, unit="", metric="time_ns"):
    return Claim(what, kind, a, b, True, limit, unit, why, metric)


def least(what, kind, a, b, limit, why, unit="", metric="time_ns"):
    return Claim(what, kind, a, b, False, limit, unit, why, metric)


_FORK_WHY = "The time of one fork() varies more than the data changes it."
_START_WHY = ("`start()` also opens a pidfd, and brings back a value or an exception. A forkserver is two more processes to wake. "
              "A spawned worker maps the arenas and checks them.")
_SERVER_WHY = "wrk, the server and its observer share two CPUs, whose noise is larger than one percent."
CLAIMS = [
    most("fork() with 4 GiB in an arena: time to that with 64 MiB", "ratio", "fork/arena/LARGE", "fork/arena/SMALL", 1.3,
         _FORK_WHY),
    most("fork() with 4 GiB in an arena: time to that without data", "ratio", "fork/arena/LARGE", "fork/none", 1.5,
         _FORK_WHY),
    most("a worker by `Start::fork`, arena of 4 GiB: time to a bare fork without data", "ratio",
         "start/fork/arena/LARGE", "start/bare_fork/none", 1.5,
         _START_WHY),
    most("a worker by `Start::forkserver`, arena of 4 GiB: the same", "ratio", "start/forkserver/arena/LARGE",
         "start/bare_fork/none", 2, _START_WHY),
    most("a worker by `Start::spawn`, arena of 4 GiB: time to posix_spawn() without data", "ratio",
         "start/spawn/arena/LARGE", "start/posix_spawn/none", 1.3, _START_WHY),
]
for _rival, _why in (("glibc", "glibc's fast bins take fewer instructions for small blocks."),
                     ("jemalloc", "The scope asks for the thread's arena at each call."),
                     ("mimalloc", "mimalloc's free lists by page take fewer instructions than jemalloc's, which an arena uses.")):
    CLAIMS.append(most(f"free and allocate in a scope: time to {_rival}", "ratio", "churn/scope/4K/small/1",
                       f"churn/{_rival}/4K/small/1", 1 / 0.95, _why))
for _rival in ("glibc", "jemalloc", "mimalloc"):
    for _pages in ("4K", "2M"):
        CLAIMS.append(most(f"fill by two threads in a scope: time to {_rival}, {_pages} pages", "ratio",
                           f"fill/scope/{_pages}/small/2", f"fill/{_rival}/{_pages}/small/2", 1 / 0.95,
                           "An arena's memory is a memfd's: the kernel takes longer to fault it in, and allocates it at "
                           "once so that no SIGBUS comes later. One lock guards an arena's extents."))
CLAIMS += [
    least("bytes of an arena in 2 MiB pages after freeze()", "value", "freeze/objects/2M", "", 99.9,
          "The kernel had no free 2 MiB page.", "% of the bytes", "huge_percent"),
    most("freeze() of objects: time to memcpy() of as many bytes", "ratio", "freeze/objects/2M", "freeze/memcpy/2M", 1,
         "freeze() walks through the arena's extents."),
    most("use of a `Ref`: added to a raw pointer's", "added", "deref/ref", "deref/raw", 1,
         "A use checks the object's slot.", "ns", "use_s"),
    most("a step along a chain of `Ref`s: the same", "added", "deref/ref_chain", "deref/raw_chain", 1,
         "A use checks the object's slot.", "ns", "use_s"),
    most("64 B by `Channel` of values: time to Boost's message_queue", "ratio", "channel/rate_64B_blocks/values",
         "channel/rate_64B_blocks/boost_queue", 1 / 3,
         "Each message moves two cache lines between the CPUs; Boost's mutex stays on one side for many messages."),
    most("64 B by `Channel` of values: time to Boost's spsc_queue, all spin", "ratio", "channel/rate_64B_spins/values",
         "channel/rate_64B_spins/boost_spsc", 1,
         "spsc_queue is for one sender and one receiver, never sleeps, and does not survive a killed process."),
    most("1 MiB by `Channel<Bytes>`: time to a socketpair", "ratio", "channel/rate_1MiB_blocks/channel",
         "channel/rate_1MiB_blocks/socketpair", 1,
         "The receiver maps the pages, 256 faults or one call a message; a socket copies from cache to cache."),
    most("wake a sleeping receiver by `Channel`: time to a bare futex", "ratio", "channel/wake_64B/channel",
         "channel/wake_64B/futex", 1.1, "A channel's messages are numbered and survive a killed process."),
    most("a copied page: added by cowtop to added by empty BPF programs", "extra", "measuring/copy/cowtop",
         "measuring/copy/none", 1.5, "The noise of a copy's time is larger than what empty programs add."),
    most("a process without faults, watched by cowtop: time to unwatched", "ratio", "measuring/compute/cowtop",
         "measuring/compute/none", 1.05, "It shares its CPU with cowtop."),
    least("a busy server, watched by cowtop: requests a second to unwatched", "ratio", "server/busy/cowtop",
          "server/busy/none", 0.99, _SERVER_WHY, metric="requests_s"),
    most("the same: time of 99 % of its answers to unwatched", "ratio", "server/busy/cowtop", "server/busy/none", 1.01,
         _SERVER_WHY),
]
for _state, _what in (("idle", "1,000 processes asleep"), ("copying", "1,000 that copy 10 pages a second")):
    for _command, _name in (("watch", "cowtop"), ("record", "cowtop record"), ("live", "the live view")):
        CLAIMS.append(most(f"CPU of {_name}, {_what}", "value", f"own_cost/{_state}/{_command}", "",
                           6 if _command == "live" else 1,  # samples may take a twentieth
                           "System calls and interrupts take ten times as long in this virtual machine as on others.", "%", "cpu_percent"))
        if _state == "copying":
            CLAIMS.append(most(f"memory of {_name}, {_what}", "value", f"own_cost/{_state}/{_command}", "", 32,
                               "It keeps what it has read of each process.", "MiB", "memory_mib"))

METHODS = [("fork", "`Start::fork`"), ("forkserver", "`Start::forkserver`"), ("spawn", "`Start::spawn`"),
           ("bare_fork", "fork()"), ("vfork", "vfork() and exec"), ("posix_spawn", "posix_spawn()"),
           ("thread", "std::thread"), ("python_fork", "Python, fork"), ("python_forkserver", "Python, forkserver"),
           ("python_spawn", "Python, spawn")]
WAYS = [("channel", "`Channel<Bytes>`"), ("values", "`Channel` of values"), ("pipe", "pipe, 1 MiB"),
        ("socketpair", "socketpair"), ("boost_queue", "Boost message_queue"), ("boost_spsc", "Boost spsc_queue"),
        ("zeromq", "ZeroMQ, ipc"), ("futex", "bare futex"), ("python_pipe", "Python Pipe"),
        ("python_simple_queue", "Python SimpleQueue"), ("python_queue", "Python Queue")]


def short(page):
    """The README's rows: what, before, after."""
    http = [(page.cell(f"server/http/{v}", "pss_bytes", nice_bytes), page.cell(f"server/http/{v}", "peak_pss_bytes", nice_bytes))
            for v in ("before", "after")]
    fork = [page.cell(f"fork/{memory}/{page.large}") for memory in ("heap", "huge", "arena")]
    objects = [page.cell(f"memory/objects/{how}/8", "pss_bytes", nice_bytes) for how in ("heap_shared_ptr", "arena_immortal_ptr")]
    trip = "channel/trip_64B_"
    return [
        ("HTTP server, 4 workers: all memory (PSS)", *(f"{m}, {p} at its peak" for m, p in http)),
        ("64 MiB of `shared_ptr`s' objects, 8 workers that read them: all memory (PSS)", objects[0],
         f"{objects[1]} with `ImmortalPtr` in an arena"),
        ("`fork()` with 4 GiB of data", f"{fork[0]}; {fork[1]} in 2 MiB heap pages", fork[2]),
        ("64 B to another process and back", f"pipe {page.cell(trip + 'blocks/pipe')}",
         f"{page.cell(trip + 'spins/values')} if both spin; waking a sleeper takes {page.cell('channel/wake_64B/values')}"),
        ("**A loss:** free and allocate a small block", f"mimalloc {page.cell('churn/mimalloc/4K/small/1')}",
         f"malloc in an `ArenaScope` {page.cell('churn/scope/4K/small/1')}; glibc {page.cell('churn/glibc/4K/small/1')}"),
    ]


def machine():
    text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    memory = int(pathlib.Path("/proc/meminfo").read_text(encoding="utf-8").split()[1]) / 2**20
    thp = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="utf-8").strip()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=pathlib.Path(__file__).parent, check=False,
                            stdout=subprocess.PIPE, text=True).stdout.strip()
    return (f"{re.search(r'model name.*: (.*)', text)[1]}, {text.count('processor	')} CPUs, {memory:.0f} GiB, "
            f"Linux {re.match(r'[0-9.]+', platform.release())[0].rstrip('.')}, glibc {platform.libc_ver()[1]}, THP `{thp}`, commit {commit}")


def add_claims(page):
    judged = [(claim, page.judge(claim)) for claim in CLAIMS]
    judged = [(claim, result) for claim, result in judged if result]
    page.section("What is claimed", "A claim is *met* if the whole 95 % interval keeps the limit, *missed* if none of it does, else",
                 "*close*. A ratio within 1 % of its limit is close. Bootstrap over sittings, and repetitions within them.")
    page.table(["claim", "limit", "measured", "verdict"],
               [(claim.what, f"{'at most' if claim.most else 'at least'} {claim.limit:.3g} {claim.unit}".strip(),
                 f"{value:.3g} [{low:.3g}, {high:.3g}]", verdict) for claim, (value, low, high, verdict) in judged])
    page.lines += ["", "What is not met, and why:", ""]
    whys = collections.defaultdict(list)
    for claim, (*_, verdict) in judged:
        if verdict != "met":
            whys[claim.why].append(f"{claim.what} ({verdict})")
    page.lines += [f"* {'; '.join(what)}: {why}" for why, what in whys.items()]


def add_start(page):
    memories = [("arena", "arena"), ("memfd", "memfd"), ("shared_memory", "Python shared_memory"),
                ("heap", "heap"), ("huge", "heap, 2 MiB pages")]
    page.section("fork", "`bench --benchmark_filter=^fork/`: the call in the parent, which holds one array.")
    page.table(["", page.small, page.large], [("nothing", page.cell("fork/none"), page.cell("fork/none_again") + " (again)")] +
               [(name, *(page.cell(f"fork/{memory}/{size}") for size in (page.small, page.large))) for memory, name in memories])
    page.section("start", "From the call until the worker has answered a question about the data and has been reaped; in brackets",
                 "until its first line. *Sent*: the worker gets a copy, through a pipe, as an argument or pickled; more than 1 GiB is",
                 "left out. *Mapped*: it maps an arena, a memfd or `shared_memory`. `fork` inherits all. *Threads*: beside 32 threads",
                 "that wake up each millisecond, without data; `Start::fork` refuses that. `results.csv` has all holdings beside threads.")

    def both(row):
        begun = page.cell(row, "begun_ns")
        return f"{page.cell(row)} ({begun})" if begun else ""

    rows = []
    for method, name in METHODS:
        mapped = next((m for m, _ in memories[:3] if page.get(f"start/{method}/{m}/{page.small}")), "arena")
        rows.append((name, both(f"start/{method}/none"), both(f"start/{method}/{mapped}/{page.small}"),
                     both(f"start/{method}/{mapped}/{page.large}"), both(f"start/{method}/heap/{page.small}"),
                     both(f"start/{method}/heap/{page.large}"), both(f"start/{method}/huge/{page.large}"),
                     both(f"start/{method}/none/beside_threads")))
    page.table(["", "nothing", f"mapped {page.small}", page.large, f"heap {page.small}", page.large, f"{page.large} in 2 MiB pages", "threads"], rows)
    page.section("memory", "PSS of all processes once each worker has read all the data, and the time from the first start until then. Page",
                 "tables are not in PSS: with 64 workers and 4 GiB in an arena they take "
                 f"{page.cell(f'memory/fork/arena/{page.large}/64', 'page_table_bytes', nice_bytes)}.")

    def warm(row):
        total = page.cell(row, "pss_bytes", nice_bytes)
        return f"{total}, {page.cell(row)}" if total else ""

    names, kinds = dict(METHODS), dict([*memories, ("list", "list")])
    shown = [("fork", "arena", page.large), ("forkserver", "arena", page.large),
             ("spawn", "arena", page.large), ("bare_fork", "memfd", page.small), ("bare_fork", "heap", page.small),
             ("bare_fork", "huge", page.large),
             ("thread", "heap", page.large), ("posix_spawn", "memfd", page.small),
             ("posix_spawn", "heap", page.small), ("python_fork", "list", page.small), ("python_spawn", "list", page.small),
             ("python_fork", "shared_memory", page.small)]
    rows = [(f"{names[method]}, {kinds[memory]} {size}", *(warm(f"memory/{method}/{memory}/{size}/{count}") for count in (1, 8, 64)))
            for method, memory, size in shown]
    page.table(["", "1 worker", "8 workers", "64 workers"], rows)
    page.lines += ["", "The same of 64 MiB of objects behind pointers, which 8 forked workers copy as they read:",
                   ", ".join(f"{name} {page.cell(f'memory/objects/{how}/8', 'pss_bytes', nice_bytes)}" for how, name in (
                       ("heap_shared_ptr", "`shared_ptr` on the heap"), ("heap_immortal_ptr", "`ImmortalPtr` on the heap"),
                       ("arena_immortal_ptr", "`ImmortalPtr` in an arena"))) + "."]


def add_others(page):
    page.section("fill", "ns to free and allocate a block (*churn*), or to allocate and write it (*fill*), by fresh processes. *small*: 16 to",
                 "128 bytes; *even*: to 4 KiB, log-uniform; 1 and 2 are threads. Arena: `Arena::allocate()`; scope: malloc in an `ArenaScope`.",
                 "2 MiB pages: `glibc.malloc.hugetlb=1`, `MALLOC_CONF=thp:always`, `MIMALLOC_LARGE_OS_PAGES=1`, checked.")
    ways = ["arena", "scope", "glibc", "jemalloc", "mimalloc"]
    page.table(["", *ways], [(f"{pattern}, {mix}, {threads}, {pages}",
                              *(page.cell(f"{pattern}/{way}/{pages}/{mix}/{threads}", nice=lambda ns: f"{ns:.3g}") for way in ways))
                             for pattern in ("churn", "fill") for mix, threads in (("small", 1), ("small", 2), ("even", 2)) for pages in ("4K", "2M")])
    page.section("freeze", "Per GiB. *Collapsed*: `collapse()` of an arena in 4 KiB pages. *Audit*: `private_bytes()`.")
    page.table(["", "2 MiB pages", "4 KiB pages", "collapsed"],
               [(what, *(page.cell(f"freeze/{what}/{pages}") for pages in ("2M", "4K", "collapsed")))
                for what in ("array", "objects", "memcpy", "audit")])
    uses = ["raw", "immortal_ptr", "ref", "try_get", "get", "shared_ptr_copied", "raw_chain", "ref_chain"]
    page.section("deref", "One use, in a process of one thread, where a `shared_ptr` counts without atomic instructions.")
    page.table(uses, [[page.cell(f"deref/{use}", "use_s", lambda s: nice_time(1e9 * s)) for use in uses]])
    page.section("channel", "Between processes on CPUs of their own; every byte is compared first. *Blocks*: calls that sleep if they must (a",
                 "channel spins before it sleeps); *spins*: calls that return at once, again and again. *Rate*: time a message; *trip*: there",
                 "and back, median; *4 to 4*: four senders and receivers; *woken*: from the send until a receiver that slept has it.")
    columns = ["rate_64B_blocks", "rate_64B_spins", "rate_64B_4to4", "rate_1MiB_blocks", "trip_64B_blocks", "trip_64B_spins",
               "trip_1MiB_blocks", "wake_64B"]
    page.table(["", "64 B rate, blocks", "spins", "4 to 4", "1 MiB rate", "64 B trip, blocks", "spins", "1 MiB trip", "woken"],
               [(name, *(page.cell(f"channel/{column}/{way}") for column in columns)) for way, name in WAYS])
    page.section("measuring", "ns a page, in the watched process: a copy, the same where each page has a mapping of its own, and the first touch of",
                 "a page by another process; and a round without faults. perf: `perf record -e page-faults -c 1`; bpftrace: it counts page faults.")
    kinds = [("none", "unwatched"), ("none_again", "unwatched, again"), ("empty_probes", "empty BPF programs"), ("cowtop", "cowtop"),
             ("perf", "perf"), ("bpftrace", "bpftrace")]
    page.table(["", "copy", "copy, many mappings", "touch beside", "no faults"],
               [(name, *(page.cell(f"measuring/{work}/{kind}") for work in ("copy", "copy_in_many_mappings", "touch", "compute")))
                for kind, name in kinds])
    page.section("server", "A Python server of two workers, each replaced after 20,000 requests, under wrk.")
    page.table(["", "requests a second", "99 % answered in"],
               [(name, page.cell(f"server/busy/{kind}", "requests_s", "{:,.0f}".format), page.cell(f"server/busy/{kind}", "p99_ns"))
                for kind, name in kinds])


def plot(page, out):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "cowshed"
    from matplotlib import pyplot

    def bars(file, title, unit, groups, series):
        """series: (label, rows by group); a row that was not measured has no bar."""
        figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
        for number, (label, rows, scale, metric) in enumerate(series):
            at = [x + (number - len(series) / 2 + 0.5) * 0.8 / len(series) for x in range(len(groups))]
            known = [(x, median(page.get(row, metric)) * scale, page.get(row, metric)) for x, row in zip(at, rows) if page.get(row, metric)]
            spread = [interval(sittings) for _, _, sittings in known]
            axes.bar([x for x, _, _ in known], [y for _, y, _ in known], 0.8 / len(series), label=label,
                     yerr=[[y - low * scale for (_, y, _), (low, _) in zip(known, spread)],
                           [high * scale - y for (_, y, _), (_, high) in zip(known, spread)]], error_kw={"elinewidth": 0.7})
        axes.set(title=title, ylabel=unit, yscale="log", xticks=range(len(groups)))
        axes.set_xticklabels(groups, rotation=20, ha="right")
        axes.legend(fontsize="small")
        figure.savefig(out / file, metadata={"Date": None})
        pyplot.close(figure)

    sizes = ["none", page.small, page.large]
    bars("fork.svg", "Time of fork(), by the memory of the data", "µs", ["arena", "memfd", "heap", "heap, 2 MiB pages"],
         [(size, [f"fork/{m}/{size}" if size != "none" else "fork/none" for m in ("arena", "memfd", "heap", "huge")], 1e-3, "time_ns")
          for size in sizes])
    bars("start.svg", "A worker's start, answer and end, by method and what its parent holds", "ms", [name for _, name in METHODS],
         [(label, [f"start/{method}/{held}" for method, _ in METHODS], 1e-6, "time_ns") for label, held in (
             ("nothing", "none"), (f"{page.large} in an arena", f"arena/{page.large}"), (f"{page.small} on the heap", f"heap/{page.small}"),
             (f"{page.large} on the heap", f"heap/{page.large}"))])
    bars("channel.svg", "A message's time", "µs", [name for _, name in WAYS],
         [(label, [f"channel/{column}/{way}" for way, _ in WAYS], 1e-3, "time_ns") for label, column in (
             ("64 B, rate", "rate_64B_blocks"), ("64 B there and back, spinning", "trip_64B_spins"), ("woken", "wake_64B"),
             ("1 MiB, rate", "rate_1MiB_blocks"))])
    kinds = ["none", "empty_probes", "cowtop", "perf", "bpftrace"]
    bars("measuring.svg", "A page's time, by who watches", "ns", kinds,
         [(label, [f"measuring/{work}/{kind}" for kind in kinds], 1, "time_ns") for label, work in (
             ("copied by the watched process", "copy"), ("touched by a process beside it", "touch"))])


def write_csv(results, out):
    """`values`: those of a sitting between spaces, sittings between semicolons."""
    with open(out / "results.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["benchmark", "metric", "median", "low", "high", "values"])
        writer.writerow(["machine", machine(), 0, 0, 0, 0])
        for (name, metric), sittings in sorted(results.items()):
            figures = [f"{figure:.5g}" for figure in (median(sittings), *interval(sittings))]
            writer.writerow([name, metric, *figures, ";".join(" ".join(f"{x:.5g}" for x in s) for s in sittings)])


def read_csv(out):
    with open(out / "results.csv", encoding="utf-8", newline="") as file:
        return {(row["benchmark"], row["metric"]): [[float(x) for x in sitting.split()] for sitting in row["values"].split(";")]
                for row in csv.DictReader(file)}


def write(out):
    page = Page(read_csv(out))
    page.lines = ["# Performance", "", f"`./tools/bench` made this page, `results.csv` and the plots. The machine: {next((m for n, m in page.results if n == 'machine'), machine())}.",
                  "It is a small, noisy virtual machine: take the ratios. All rows of a family take turns; figures are medians.",
                  "[results.csv](results.csv) has each row's 95 % interval and its values.", "", "## In short"]
    page.table(["", "before", "after"], short(page))
    add_claims(page)
    page.lines += ["", "![fork](fork.svg) ![start](start.svg)", "![channel](channel.svg) ![measuring](measuring.svg)"]
    add_start(page)
    add_others(page)
    (out / "performance.md").write_text("\n".join(page.lines) + "\n", encoding="utf-8")
    plot(page, out)


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
