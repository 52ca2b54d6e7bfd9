"""Writes README.md's table of what to choose, from what was measured: run without arguments."""
import argparse
import dataclasses
import pathlib
import sys

import growth
import page

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
BEGIN = "<!-- By python3 bench/suite/decision.py, of docs/performance.md -->\n"
END = "<!-- The end of what it writes -->\n"
BEGIN_FORK = "<!-- By python3 bench/suite/decision.py, of docs/performance.md: fork() -->\n"
CLEARLY = 1.25  # less than that, 20 % less, is no reason against another
SCALES = {"us": ("us", "ms", "s"), "ms": ("ms", "s"), "ns": ("ns", "us", "ms", "s")}


@dataclasses.dataclass(frozen=True)
class Choice:
    text: str
    figure: str


@dataclasses.dataclass(frozen=True)
class Situation:
    have: str
    measure: str  # what the figures are
    benchmark: str
    group: str  # of all figures, or "", where each choice names its own
    choices: tuple  # the simplest first

    def figure_of(self, choice, reports):
        group, name = (self.group, choice.figure) if self.group else choice.figure.rsplit("/", 1)
        for row in reports.get(self.benchmark, {"figures": []})["figures"]:
            if (row["group"], row["name"]) == (group, name):
                return row
        raise LookupError(f"{self.benchmark} has no figure '{name}' in group '{group}'")


def situation(have, measure, benchmark, group, *choices):
    return Situation(have, measure, benchmark, group, tuple(Choice(*each) for each in choices))


PIPE, POSIX_QUEUE, CHANNEL = ("a pipe", "pipe"), ("a POSIX queue", "POSIX mq"), ("a `Channel`", "channel")
BOOST, ZEROMQ = ("Boost's `message_queue`", "Boost message_queue"), ("ZeroMQ", "ZeroMQ")
SOCKETPAIR = ("a socketpair", "socketpair")
FORK, FORKSERVER, SPAWN = "`Start::fork`", "`Start::forkserver`", "`Start::spawn`"
SITUATIONS = [
    situation("big data, which may lie where you like", "fork() with 12 GiB of objects",
              "fork_latency", "", ("a frozen `Arena`", "arena/objects/12 GiB"),
              ("the heap in huge pages", "huge heap/objects/12 GiB"),
              ("the ordinary heap", "heap/objects/12 GiB")),
    situation("big data that must stay on the heap, and workers that need it",
              "fork() with 12 GiB of objects", "fork_latency", "",
              ("the heap as it is", "heap/objects/12 GiB"),
              ("`GLIBC_TUNABLES=glibc.malloc.hugetlb=1`", "huge heap/objects/12 GiB")),
    situation("big data on the heap, and workers that do not need it",
              "a worker's first line, beside 4 GiB", "start_methods", "begin/heap/4 GiB",
              (FORK, "fork"), (FORKSERVER, "forkserver"), (SPAWN, "spawn")),
    situation("data in a frozen arena, no other threads",
              "start, result and end of a worker, with 256 MiB", "start_methods",
              "cycle/arena/256 MiB", (FORK, "fork"), (FORKSERVER, "forkserver"), (SPAWN, "spawn")),
    situation("data in a frozen arena, and threads",
              "start, result and end of a worker, beside 32 threads", "start_methods",
              "cycle/arena/32 threads", (FORKSERVER, "forkserver"), (SPAWN, "spawn")),
    situation("workers that are another program",
              "start, result and end of a worker, with 256 MiB", "start_methods",
              "cycle/arena/256 MiB", (SPAWN, "spawn"), ("`posix_spawn`", "posix_spawn"),
              ("`vfork`", "vfork")),
    situation("work that may share everything, and may fall with its process",
              "its start and end, with 256 MiB", "start_methods", "cycle/arena/256 MiB",
              ("`std::thread`", "thread"), (FORK, "fork"), (SPAWN, "spawn")),
    situation("objects with pointers and strings, for 8 workers",
              "memory of all, 64 MiB of data", "sharing", "memory/64 MiB",
              ("`shared_ptr` on the heap, forked", "shared_ptr"),
              ("the same in huge pages", "shared_ptr, huge pages"), ("a frozen `Arena`", "arena"),
              ("Boost.Interprocess", "Boost.Interprocess")),
    situation("data that can be one table of offsets", "look-ups of 8 workers in 64 MiB",
              "sharing", "look-ups/64 MiB", ("a frozen `Arena`", "arena"),
              ("a flat buffer", "flat buffer")),
    situation("a parent's blocks, which children free", "pages that a child copies by freeing",
              "allocators", "copied pages/even, 100 % freed", ("glibc's heap", "glibc"),
              ("mimalloc", "mimalloc"), ("jemalloc", "jemalloc"), ("an `ArenaScope`", "arena")),
    situation("small messages from a process to another", "64 bytes", "channel_rivals",
              "rate/64 B", PIPE, SOCKETPAIR, POSIX_QUEUE, CHANNEL, BOOST, ZEROMQ),
    situation("small messages among several processes", "64 bytes, 4 senders, 4 receivers",
              "channel_rivals", "rate/64 B, 4 to 4", PIPE, SOCKETPAIR, POSIX_QUEUE, CHANNEL, BOOST,
              ZEROMQ),
    situation("questions that wait for their answer", "64 bytes there and back, the median",
              "channel_rivals", "round trip/64 B",
              *((text, figure + ", p50") for text, figure in
                (PIPE, ("a pipe that is polled for ever", "pipe, polled"), POSIX_QUEUE, CHANNEL, BOOST,
                 ZEROMQ))),
    situation("messages of a mebibyte", "1 MiB, each byte sent and read", "channel_rivals",
              "rate/1 MiB", PIPE, SOCKETPAIR, CHANNEL, BOOST, ZEROMQ),
    situation("messages of 64 mebibytes", "each byte sent and read", "channel_rivals",
              "rate/64 MiB", PIPE, SOCKETPAIR, CHANNEL, BOOST, ZEROMQ),
    situation("a large result, of which another process reads a part", "1 GiB, mapped and a byte of each page read",
              "channel", "gibibyte mapped", ("a pipe", "pipe"),
              ("a buffer, moved through a `Channel`", "moved")),
    situation("a server that changes its data while a child saves it",
              "how long it stands still for that, 64 MiB of data", "applications", "snapshot/pause",
              ("the ordinary heap, forked", "heap"), ("the heap in huge pages, forked", "heap, huge pages"),
              ("an arena that is frozen anew", "arena")),
    situation("the same, and memory is what counts", "memory of both, 64 MiB of data", "applications",
              "snapshot/memory", ("the ordinary heap, forked", "heap"),
              ("the heap in huge pages, forked", "heap, huge pages"),
              ("an arena that is frozen anew", "arena")),
    situation("workers that make batches of samples", "samples, 4 workers", "applications",
              "data loader/samples", ("objects on the heap, and a pipe", "shared_ptr, pipe"),
              ("objects in an arena, and a pipe", "arena, pipe"),
              ("objects in an arena, and a channel", "arena, channel")),
    situation("Python workers that need the parent's dictionary",
              "until 8 workers answer, 64 MiB of data", "sharing", "start/64 MiB",
              ("`fork`, which copies what it reads", "Python, forked"), ("`spawn`, pickled", "Python, pickled")),
    situation("Python workers beside threads, or without need of the data",
              "a worker's first line, beside 256 MiB", "start_methods", "begin/python/256 MiB",
              ("`forkserver`", "forkserver"), ("`spawn`", "spawn")),
]


def amount(row, void):
    value, unit = row["value"], row["unit"]
    scales = SCALES.get(unit, (unit,))
    while value >= 1000 and len(scales) > 1:
        value, scales = value / 1000, scales[1:]
    about = "~" if row["group"] in void else ""
    return f"{about}{growth.number(value)} {scales[0]}".strip()


def choose(costs):
    """Those that none beats clearly: {choice: cost}, the simplest first."""
    least = min(costs.values())
    return [choice for choice, cost in costs.items() if cost <= CLEARLY * least]


def table(reports):
    yield "| you have | choose | measured | instead of |"
    yield "|---|---|---|---|"
    for each in SITUATIONS:
        rows = {choice: each.figure_of(choice, reports) for choice in each.choices}
        void = growth.void_groups(reports[each.benchmark])
        chosen = choose({choice: growth.cost_of(row) for choice, row in rows.items()})
        others = ", ".join(f"{choice.text}: {amount(row, void)}" for choice, row in rows.items()
                           if choice is not chosen[0])
        yield (f"| {each.have} | {' or '.join(choice.text for choice in chosen)} | "
               f"{each.measure}: {amount(rows[chosen[0]], void)} | {others} |")


def fork_goals(reports):
    """That fork() takes no longer with more data."""
    goals = [row for row in reports["fork_latency"]["goals"] if row["what"].startswith("arena/")]
    if not goals:
        raise LookupError("fork_latency has no goals of an arena")
    yield "```"
    for row in goals:
        limit = row["limit"] if isinstance(row["limit"], str) else f"at most {row['limit']:.3g}"
        yield (f"{row['verdict']:<10} {row['what']:<40} {limit}: {row['measured']:.3g} "
               f"[{row['low']:.3g}, {row['high']:.3g}]")
    yield "```"


def written(text, begin, lines):
    """The text with these lines between the marks."""
    before, found, rest = text.partition(begin)
    _, end, after = rest.partition(END)
    if not found or not end:
        raise LookupError("the marks of the table are missing")
    return "".join([before, begin, *(f"{line}\n" for line in lines), END, after])


def update(readme, results):
    """The tables in it.  LookupError: it has no place for them, or `results` lack what they are of."""
    reports = page.read(results)
    text = written(readme.read_text(encoding="utf-8"), BEGIN, table(reports))
    readme.write_text(written(text, BEGIN_FORK, fork_goals(reports)), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(prog="bench/suite/decision.py", description=__doc__)
    parser.add_argument("results", nargs="*", default=[SOURCE / "docs/performance.md"],
                        help="performance.md, or the benchmarks' JSON (docs/performance.md)")
    parser.add_argument("--readme", type=pathlib.Path, default=SOURCE / "README.md",
                        help="the file to write into")
    options = parser.parse_args()
    try:
        update(options.readme, options.results)
    except (LookupError, OSError) as error:
        sys.exit(f"decision.py: {error}")


if __name__ == "__main__":
    main()
