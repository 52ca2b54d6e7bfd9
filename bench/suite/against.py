"""Compares two builds of the benchmarks, in turns: `./tools/bench --against` calls it."""
import argparse
import dataclasses
import json
import math
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile

import plan
import results as found
import running
from folder import AGAINST_SCHEMA, Folder

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
SLOWER = 1.05  # by less than that nothing has become worse
FAR = 1.2  # what could be that much slower is not called the same
RESAMPLES = 4000
CHUNK = 1 << 20
HIGHER_IS_BETTER = ("/s", "a second", "%")  # units of figures; a goal has its bound


@dataclasses.dataclass(frozen=True)
class Figure:
    benchmark: str
    group: str
    name: str
    unit: str

    def __str__(self):
        return f"{self.benchmark}, {self.group}: {self.name}"

    @property
    def is_count(self):
        return self.unit == ""

    @property
    def is_added(self):
        """A difference of two times, both many times as long: near 0, a ratio of two is only noise."""
        return self.name.endswith(" adds")


@dataclasses.dataclass
class Comparison:
    ratio: float  # infinite where the other's was 0
    low: float
    high: float
    pairs: int
    this: float  # the median cost
    other: float

    def verdict(self, figure):
        if figure.is_added and self.this == self.other == 0:  # noise hides both
            return "undecided"
        if self.low > (1 if figure.is_count else SLOWER):  # counts are exact
            return "slower"
        if self.high < 1 / SLOWER:
            return "faster"
        return "undecided" if self.high > FAR else "same"


class Failure(Exception):
    """Of one benchmark: the others can still be compared."""


def ratio(one, other):
    if one == other:
        return 1
    return one / other if other else math.inf


def median_of_ratios(pairs):
    return statistics.median(ratio(one, other) for one, other in pairs)


def ratio_of_medians(pairs):
    """Steady where single ones are 0 at times; infinite only where the other's median is 0."""
    return ratio(*(statistics.median(of_one) for of_one in zip(*pairs)))


def compare(figure, ours, theirs):
    """Their ratio, and its 95 % interval by bootstrap over the pairs."""
    pairs = list(zip(ours, theirs))
    middle = ratio_of_medians if figure.is_added else median_of_ratios
    draw = random.Random(1)
    resampled = sorted(middle(draw.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    return Comparison(middle(pairs), resampled[int(RESAMPLES * 0.025)],
                      resampled[int(RESAMPLES * 0.975)], len(pairs), statistics.median(ours),
                      statistics.median(theirs))


def is_ours(part, row):
    return any(re.fullmatch(name, row["name"]) and re.fullmatch(group, row["group"])
               for group, name in part.ours)


def rows_of(report):
    """Its figures, and what its goals are about, as if these were figures of a group of their own."""
    return report["figures"] + [
        {"group": "goal", "name": goal["what"], "value": goal["measured"], "unit": goal["unit"],
         "bound": goal["bound"]} for goal in report["goals"]]


def cost(row):
    """What is larger where it is worse.  Less than nothing is a difference that noise has made."""
    value = row["value"]
    is_more_better = (row["bound"] == "at_least" if "bound" in row else
                      row["unit"].endswith(HIGHER_IS_BETTER))
    if not is_more_better:
        return max(value, 0)
    return 1 / value if value else math.inf


def read_anew(builds):
    """The programs of both, from the disk into the page cache: as the linker writes them they lie
    otherwise, and a fork() of the very same program took 5 to 9 % more or less with it."""
    for build in builds:
        for path in (each for folder in ("bench", "tools", "tests/tools")
                     for each in (build / folder).glob("*")
                     if each.is_file() and os.access(each, os.X_OK)):
            with open(path, "rb") as file:
                os.fsync(file.fileno())  # what is dirty stays
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                while file.read(CHUNK):
                    pass


def run_once(part, build, json_file):
    """({Figure: cost}, {(setting's name, text)}) of one run of the benchmark, of what is ours."""
    program = build / "bench" / part.benchmark
    json_file.unlink(missing_ok=True)
    run = running.run(part, build, json_file)
    if run.exit_code != 0:
        last = run.output.splitlines()[-1:] or ["no word"]
        raise Failure(f"{program} failed: {last[0]}")
    report = json.loads(json_file.read_text(encoding="utf-8"))
    costs = {}
    for row in rows_of(report):
        if is_ours(part, row):
            figure = Figure(part.benchmark, row["group"], row["name"], row["unit"])
            costs[figure] = cost(row)
    if not costs:
        raise Failure(f"{program} has none of {', '.join(name for _, name in part.ours)}")
    return costs, {(row["name"], row["text"]) for row in report["settings"]}


def measure(part, builds, rounds, json_file):
    """([{Figure: cost}], [{Figure: cost}]): the runs of either build, which take turns: A B B A.
    And the settings that either had."""
    runs, settings = ([], []), (set(), set())
    try:
        for _ in range(rounds):
            for which in (0, 1, 1, 0):
                costs, had = run_once(part, builds[which], json_file)
                runs[which].append(costs)
                settings[which].update(had)
    except (OSError, ValueError, LookupError) as error:
        raise Failure(f"{part.benchmark} failed: {error!r}") from error
    return runs, settings


def comparisons(runs):
    """{Figure: Comparison} of what is in every run, for only then the pairs are pairs."""
    every = set.intersection(*(set(run) for of_one in runs for run in of_one))
    return {figure: compare(figure, *([run[figure] for run in of_one] for of_one in runs))
            for figure in runs[0][0] if figure in every}


def missing(runs, commits):
    """One doubt for each figure that cannot be compared."""
    for figure in dict.fromkeys(figure for of_one in runs for run in of_one for figure in run):
        counts = [sum(figure in run for run in of_one) for of_one in runs]
        if min(counts) < len(runs[0]):
            told = ", ".join(f"{commit} has it in {count} of {len(runs[0])} runs"
                             for commit, count in zip(commits, counts))
            yield f"{figure} ({figure.unit or 'a count'}) was not compared: {told}"


def unlike(benchmark, settings, commits):
    """A doubt where the two were not measured alike."""
    names = sorted({name for name, _ in settings[0] ^ settings[1]})
    if names:
        yield (f"{benchmark}: {' and '.join(commits)} may not have measured the same thing, for these "
               f"settings differ: {'; '.join(names)}")


def judge(part, builds, rounds, json_file, commits):
    """([(Figure, Comparison, verdict)], doubts, whether it failed)."""
    try:
        runs, settings = measure(part, builds, rounds, json_file)
    except Failure as failure:
        return [], [str(failure)], True
    rows = [(figure, comparison, comparison.verdict(figure))
            for figure, comparison in comparisons(runs).items()]
    doubts = [*missing(runs, commits), *unlike(part.benchmark, settings, commits)]
    rows, more, failed = look_again(part, builds, rounds, json_file, commits, rows)
    return rows, doubts + more, failed


def look_again(part, builds, rounds, json_file, commits, rows):
    """The same, of rows of which those that seem slower must be so in a batch of its own, too."""
    if all(verdict != "slower" for _, _, verdict in rows):
        return rows, [], False
    failure, again, settings = None, {}, (set(), set())
    try:
        runs, settings = measure(part, builds, 2 * rounds, json_file)
        again = comparisons(runs)
    except Failure as each:
        failure = f"{each}, when what seemed slower was measured again"
    doubts = [*unlike(part.benchmark, settings, commits), *([failure] if failure else [])]
    return [confirmed(*row, again) for row in rows], doubts, failure is not None


def confirmed(figure, comparison, verdict, again):
    if verdict != "slower":
        return figure, comparison, verdict
    if figure not in again:
        return figure, comparison, "undecided"
    verdict = again[figure].verdict(figure)
    return figure, again[figure], "undecided" if verdict == "faster" else verdict


def table(rows):
    yield "| what | this to the other: cost | verdict |"
    yield "|---|---|---|"
    for figure, each, verdict in rows:
        counts = f", {each.other:g} to {each.this:g}" if figure.is_count else ""
        yield (f"| {figure} | {each.ratio:.3g} [{each.low:.3g}, {each.high:.3g}], "
               f"{each.pairs} pairs{counts} | {verdict} |")


def not_compared():
    """One line."""
    return "not compared: " + "; ".join(f"{what} ({why})" for what, why in plan.NOT_COMPARED.items())


def finite(numbers):
    """JSON has no infinity."""
    return {name: None if value == math.inf else value for name, value in numbers.items()}


def write(rows, doubts, commits, folder):
    title = f"# {commits[0]} against {commits[1]}"
    lines = [title, "", *table(rows), "", *(f"* {doubt}" for doubt in doubts), "", not_compared(), ""]
    answer = {"schema": AGAINST_SCHEMA, "commit": commits[0], "against": commits[1],
              "doubts": doubts, "not_compared": plan.NOT_COMPARED,
              "figures": [{**dataclasses.asdict(figure), **finite(dataclasses.asdict(each)),
                           "verdict": verdict} for figure, each, verdict in rows]}
    folder.save("against.json", lambda: json.dumps(answer, indent=2, allow_nan=False))
    folder.save("against.md", lambda: "\n".join(lines))


def main():
    parser = argparse.ArgumentParser(prog="bench/suite/against.py", description=__doc__)
    for name, what in (("build", "this build"), ("other", "the other commit's")):
        parser.add_argument(name, type=lambda text: pathlib.Path(text).resolve(), help=what)
    parser.add_argument("out", type=pathlib.Path, help="the folder to write to")
    parser.add_argument("--against", metavar="REV", required=True, help="that commit's name")
    parser.add_argument("--only", choices=list(dict.fromkeys(part.benchmark for part in plan.AGAINST)),
                        help="one benchmark")
    parser.add_argument("--rounds", type=int, default=6, help="of two runs of each; twice as many "
                        "to confirm")
    options = parser.parse_args()
    out = Folder(options.out)
    builds = (options.build, options.other)
    commits = (found.commit_of(SOURCE), options.against)
    judged, doubts, failed, interrupted = [], [], False, False
    read_anew(builds)
    parts = [part for part in plan.AGAINST if options.only in (None, part.benchmark)]
    with tempfile.TemporaryDirectory(prefix="cowshed-bench-") as folder:
        how = (builds, options.rounds, pathlib.Path(folder) / "report.json", commits)
        try:
            for number, part in enumerate(parts, 1):
                print(f"[{number}/{len(parts)}] {found.command(part)}", flush=True)
                try:
                    why = plan.why_not(part, options.build)
                except (OSError, ValueError) as error:
                    why = repr(error)
                    failed = True
                if not why and not (options.other / "bench" / part.benchmark).exists():
                    why = f"{options.against} has no such benchmark"
                if why:
                    doubts.append(f"{found.command(part)} was skipped: {why}")
                    continue
                rows, found_doubts, has_failed = judge(part, *how)
                judged.append((part, rows))
                doubts += found_doubts
                failed |= has_failed
            # What makes a machine slow may last for minutes, and take one side more than the other.
            for number, (part, rows) in enumerate(judged):
                if any(verdict == "slower" for _, _, verdict in rows):
                    print(f"[once more] {found.command(part)}", flush=True)
                rows, found_doubts, has_failed = look_again(part, *how, rows)
                judged[number] = (part, rows)
                doubts += found_doubts
                failed |= has_failed
        except KeyboardInterrupt:
            interrupted = True
            doubts.append("Interrupted: what comes later in the plan is not here")
    rows = [row for _, of_part in judged for row in of_part]
    if not rows:
        doubts.append("Nothing was compared")
    doubts = list(dict.fromkeys(doubts))  # several parts of one benchmark have the same settings
    running.ignore_interrupts()
    print("\n".join([*table(rows), *(f"doubt: {doubt}" for doubt in doubts), not_compared()]))
    for verdict, told in (("undecided", "undecided against"), ("slower", "slower than")):
        for figure in (figure for figure, _, which in rows if which == verdict):
            print(f"{told} {options.against}: {figure}")
    write(rows, doubts, commits, out)
    slower = any(verdict == "slower" for _, _, verdict in rows)
    sys.exit(130 if interrupted else 1 if slower or failed or not rows or out.problems else 0)


if __name__ == "__main__":
    sys.stdout = running.Teller(sys.stdout)
    running.end_by_signals()
    try:
        main()
    except KeyboardInterrupt:  # before anything was measured
        sys.exit(130)
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"bench: {error}")
