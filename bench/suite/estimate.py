"""Writes docs/growth.md, and its picture: how each cost grows, and what 1 TiB and 1,000 workers
would take by that, on paper.  Run without arguments."""
import argparse
import pathlib
import sys
import textwrap

import growth
import page

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
GIB = 1024  # in 1 TiB
WORKERS = 1000
HOLDINGS = ("heap", "huge heap", "arena")
TITLES = {"heap": "ordinary heap", "huge heap": "heap in huge pages", "arena": "frozen arena"}
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}
REMEDIES = {
    ("heap", "fork()"): "Each fork() copies the page tables, and holds the parent up meanwhile. Not "
                        "to be repaired on the heap: the data goes into an arena; workers that do not "
                        "need it come from a forkserver, whose fork() is that of an empty process.",
    ("huge heap", "fork()"): "A 512th as many entries as on the ordinary heap, yet one for each 2 MiB: "
                             "it still grows with the data. The same as for the ordinary heap; this "
                             "is what helps where the program cannot be changed.",
    ("heap", "end of what was forked"): "Each worker takes down the page tables that its fork() has "
                                        "copied, page by page, on its own CPU. The same helps as for "
                                        "fork(), and workers that stay.",
    ("huge heap", "end of what was forked"): "As on the ordinary heap, by a 512th as many entries.",
    ("arena", "end of what was forked"): "As of any process: workers that stay.",
    ("arena", "fork()"): "The mapping is copied, not its page tables: what is left is a process's own.",
    ("arena", "start and end"): "What any process costs, whatever it shares. Workers that stay, and "
                                "take their work from a channel; where they must be new, several "
                                "forkservers at once, as each forks on one CPU.",
    ("heap", "copies"): "No machine has that: workers would be killed long before. Nothing but data "
                        "that is not written to helps: an arena, `ImmortalPtr` for the counts.",
    ("arena", "page tables"): "Entries for the 2 MiB pages that a worker touches, and none for others. "
                              "Should they matter, workers that each touch a part need that part's "
                              "alone; past that, page tables that processes share, or pages of 1 GiB, "
                              "neither of which the arena has.",
}
REMEDIES["huge heap", "copies"] = "As on the ordinary heap."


class Figures:
    """Of the reports."""

    def __init__(self, reports):
        self.reports = reports
        self.families = [family for report in reports.values()
                         for family in growth.families(report)]

    def value(self, benchmark, group, name):
        """In seconds, where it is a time."""
        for row in self.reports.get(benchmark, {"figures": []})["figures"]:
            if (row["group"], row["name"]) == (group, name):
                return row["value"] * SECONDS.get(row["unit"].removesuffix("/GiB"), 1)
        raise LookupError(f"{benchmark} has no figure '{name}' in group '{group}'")

    def at(self, x, variable, benchmark, what, without_start=False):
        """By its fit; in seconds, where it is a time."""
        for family in self.families:
            if (family.benchmark, family.what, family.variable) == (benchmark, what, variable):
                if not family.positive:
                    return growth.Interval(0, 0, 0)
                if family.fits():
                    return times(family.estimate(x, without_start), SECONDS.get(family.unit, 1))
        raise LookupError(f"{benchmark} has '{what}' with fewer than three of {variable}")

    def at_1_tib(self, benchmark, what):
        return self.at(2 ** 40, "data", benchmark, what)

    def of_all_workers(self, what, method="fork", without_start=False):
        """That live at the same time, and have nothing to read."""
        return self.at(WORKERS, "worker", "start_methods", f"{what}/arena/{method}", without_start)


def times(interval, factor):
    return growth.Interval(*(value * factor
                             for value in (interval.value, interval.low, interval.high)), interval.void)


def at_most(interval, limit):
    return growth.Interval(*(min(value, limit) for value in
                             (interval.value, interval.low, interval.high)), interval.void)


def certain(value):
    return growth.Interval(value, value, value)


def total(*intervals):
    return growth.Interval(*(sum(getattr(each, end) for each in intervals)
                             for end in ("value", "low", "high")), any(each.void for each in intervals))


def difference(whole, part):
    """Not less than nothing."""
    return growth.Interval(*(max(0, value) for value in (
        whole.value - part.value, whole.low - part.high, whole.high - part.low)),
        whole.void or part.void)


def scaled(value, units):
    """In the largest unit of which it is one or more."""
    text, unit = max(((name, size) for name, size in units if value >= size),
                     key=lambda each: each[1], default=units[0])
    if not value:
        return "0"
    amount = value / unit
    return f"{amount:,.0f} {text}" if amount >= 1000 else f"{amount:.3g} {text}"


def duration(seconds):
    return scaled(seconds, (("us", 1e-6), ("ms", 1e-3), ("s", 1), ("minutes", 60), ("hours", 3600),
                            ("days", 86400)))


def size(byte):
    return scaled(byte, tuple((name, 1024 ** power) for power, name in
                              enumerate(("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"))))


def wrapped(text):
    indent = "  " if text.startswith("* ") else ""
    return textwrap.fill(text, 105, subsequent_indent=indent, break_long_words=False,
                         break_on_hyphens=False)


def empty_time(figures, method="fork"):
    return total(*(figures.of_all_workers(what, method) for what in ("all begun", "all ended")))


def empty_memory(figures, method="fork"):
    # Without the data, and the process that holds it: there they are with no worker at all.
    kib = total(figures.of_all_workers("memory", method, without_start=True),
                figures.of_all_workers("page tables", method))
    return times(kib, 1024)


def time_terms(figures):
    """{what: {holding: seconds for all workers}}"""
    forks = {holding: times(figures.at_1_tib("fork_latency", f"{holding}/objects"), WORKERS)
             for holding in HOLDINGS}
    # What is over of begin, which is mostly fork(), until all is reaped.
    ends = {holding: difference(*(times(figures.at_1_tib("start_methods", f"{what}/{holding}/fork"),
                                        WORKERS) for what in ("cycle", "begin")))
            for holding in HOLDINGS}
    return {"fork()": forks, "end of what was forked": ends,
            "start and end": {holding: empty_time(figures) for holding in HOLDINGS}}


def memory_terms(figures):
    """{what: {holding: bytes for all workers}}"""
    sharing_workers = 8
    tables = {holding: certain(1024 * GIB * WORKERS * figures.value(
        "child_read", "child's cost", f"{holding}, page tables per GiB more than empty"))
        for holding in HOLDINGS}
    ways = {"heap": "shared_ptr", "huge heap": "shared_ptr, huge pages", "arena": "arena"}
    copies = {holding: at_most(times(figures.at_1_tib("sharing", f"copied pages/{way}"),
                                     4096 * WORKERS / sharing_workers), 1024 * GIB * 1024 ** 2 * WORKERS)
              for holding, way in ways.items()}
    return {"page tables": tables, "copies": copies,
            "own memory": {holding: empty_memory(figures) for holding in HOLDINGS}}


NAMES = {"fork()": "fork(), one after another in the parent",
         "end of what was forked": "end of forked workers, each on a CPU, beyond their start",
         "start and end": "start and end of workers that have nothing to read",
         "page tables": "page tables; the arena's, of workers that touch all",
         "copies": "copies, by workers that copy each pointer once or twice",
         "own memory": "what the workers have of their own"}


def estimate(figures):
    yield f"| {WORKERS:,} workers, 1 TiB | {' | '.join(TITLES[each] for each in HOLDINGS)} |"
    yield f"|---|{'---|' * len(HOLDINGS)}"
    dominating = []
    for terms, text in ((time_terms(figures), duration), (memory_terms(figures), size)):
        most = {holding: max(terms, key=lambda what, at=holding: terms[what][at].value)
                for holding in HOLDINGS}
        for what, row in terms.items():
            mark = {holding: "**" if most[holding] == what else "" for holding in HOLDINGS}
            cells = [mark[holding] + ("~" if row[holding].void else "") +
                     growth.with_interval(row[holding], text) + mark[holding] for holding in HOLDINGS]
            yield f"| {NAMES[what]} | {' | '.join(cells)} |"
        dominating.append(most)
    yield ""
    yield "What dominates is bold, the times and the memory each for themselves. What we would do:"
    yield ""
    for most in dominating:
        for holding in HOLDINGS:
            if (holding, most[holding]) not in REMEDIES:
                raise LookupError(f"{TITLES[holding]}: {most[holding]} dominates, for which REMEDIES "
                                  "has nothing")
            yield wrapped(f"* {TITLES[holding]}, {most[holding]}: "
                          f"{REMEDIES[holding, most[holding]]}")


def beside(figures):
    """What is the same for all, or once."""
    def of_4_gib(group, name):
        return figures.value(*group, name) / 4 * GIB

    filling = figures.value("freeze", "freeze/objects", "filling before") * GIB
    freezing = figures.value("freeze", "freeze/objects", "freeze") * GIB
    yield (f"Once: filling an arena with 1 TiB of objects, {duration(filling)}; freezing it, "
           f"{duration(freezing)}. With an arena that is longer than all workers take to start: "
           "`save_image()` keeps what was built, and several arenas are filled by several threads.")
    first = {holding: of_4_gib(("child_read", "first touch"), f"{holding}, a word of each 4 KiB")
             for holding in HOLDINGS}
    yield ("A worker's first touch of a word of each 4 KiB, which is CPU time of its own: "
           + ", ".join(f"{TITLES[holding]} {duration(first[holding])}" for holding in HOLDINGS)
           + ". In the arena's are half a million page faults, for which `prefault()` makes one call.")
    yield ("Spawned beside an arena instead of forked: start and end "
           f"{duration(empty_time(figures, 'spawn').value)}, memory "
           f"{size(empty_memory(figures, 'spawn').value)}.")
    one, batch = (1 / figures.value("channel", "stream", name) / WORKERS
                  for name in ("general", "general batched"))
    yield (f"Fan-in: the messages that one receiver can take leave {one:,.0f} a second to each worker; "
           f"in batches of 64, {batch:,.0f}. What more senders than one cost is not in this. Beyond: a "
           "channel for each hundred workers, and a second stage. A channel serves 1,024 processes: "
           "1,000 are near its end.")
    pages, audit = (of_4_gib(("freeze", "audit"), name)
                    for name in ("pagemap, 4 KiB pages", "audit"))
    added = figures.value("measuring", "copy", "cowtop adds")
    yield (f"Measuring by `/proc`: one look at 1 TiB in 4 KiB pages takes {duration(pages)} a process, "
           f"{duration(pages * WORKERS)} for all; an audit of an arena {duration(audit)}, and "
           f"{duration(audit * WORKERS)}. The exact backend looks at nothing and adds "
           f"{added * 1e9:.3g} ns to each copy as it happens: on such a heap it is the only one.")


def document(figures):
    several = [family for family in figures.families if len(family.points) >= 3]
    two = len(figures.families) - len(several)
    yield from ("# How cost grows", "")
    yield wrapped("In the figures of [performance.md](performance.md); "
                  "`python3 bench/suite/estimate.py` makes this page of them. `./tools/bench` makes "
                  "the same table of its own results, with pictures of all of it.")
    yield from ("", growth.LEGEND, "", *growth.table(several), "")
    yield wrapped(f"{two} more were measured at two sizes alone, which is no fit: they are in the "
                  "suite's results.csv.")
    yield from ("", "![fork() by what the parent holds, and in what](images/growth.svg)", "",
                "## 1 TiB and 1,000 workers, on paper", "")
    yield wrapped("By the fits above, 85 times as much data and 4 times as many workers as were "
                  "measured, each on the machine that performance.md names for that benchmark, so that "
                  "where it names several, the rows here are of several; the intervals are the fits' "
                  "alone. That many workers of that much data at the same time were not measured: "
                  "each of the two is taken for itself; ~ where some of what was measured is void. "
                  "*Copies* are those of `bench/sharing`: a worker looks up twice as many keys as there "
                  "are, and copies the pointer to each; whose sizes are those of its flat buffer, which "
                  "on the heap is nearly twice as much, and so they are at most all of 1 TiB.")
    yield from ("", *estimate(figures), "", "Besides:", "")
    yield from (wrapped(f"* {text}") for text in beside(figures))


def write(docs, results):
    """growth.md and its picture.  LookupError: `results` lack what they are of."""
    reports = page.read(results)
    lines = list(document(Figures(reports)))
    import plots  # pylint: disable=import-outside-toplevel  # which takes a second
    (docs / "images").mkdir(exist_ok=True)
    picture, = plots.growths(reports["fork_latency"], docs / "images/growth.svg")
    picture.rename(docs / "images/growth.svg")
    (docs / "growth.md").write_text("\n".join([*lines, ""]), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(prog="bench/suite/estimate.py", description=__doc__)
    parser.add_argument("results", nargs="*", default=[SOURCE / "docs/performance.md"],
                        help="performance.md, or the benchmarks' JSON (docs/performance.md)")
    parser.add_argument("--docs", type=pathlib.Path, default=SOURCE / "docs",
                        help="the folder to write to")
    options = parser.parse_args()
    try:
        write(options.docs, options.results)
    except (LookupError, OSError) as error:
        sys.exit(f"estimate.py: {error}")


if __name__ == "__main__":
    main()
