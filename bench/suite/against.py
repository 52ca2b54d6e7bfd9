"""Compares two builds of the benchmarks, in turns: `./tools/bench --against` calls it."""
import argparse
import dataclasses
import json
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile

import plan
import results as found
import running

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
SLOWER = 1.05  # by less than that nothing has become worse
RESAMPLES = 4000
HIGHER_IS_BETTER = ("/s", "a second", "%")


@dataclasses.dataclass(frozen=True)
class Figure:
    benchmark: str
    group: str
    name: str
    unit: str

    def __str__(self):
        return f"{self.benchmark}, {self.group}: {self.name}"

    def cost(self, value):
        """What is larger where it is worse."""
        return 1 / value if self.unit.endswith(HIGHER_IS_BETTER) else value


@dataclasses.dataclass
class Comparison:
    ratio: float
    low: float
    high: float
    pairs: int

    @property
    def is_slower(self):
        return self.low > SLOWER


def compare(ours, theirs):
    """The median of the pairs' ratios, and its 95 % interval by bootstrap."""
    ratios = [one / other for one, other in zip(ours, theirs)]
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios)))
                     for _ in range(RESAMPLES))
    return Comparison(statistics.median(ratios), medians[int(RESAMPLES * 0.025)],
                      medians[int(RESAMPLES * 0.975)], len(ratios))


def figures_of(part, build, json_file):
    """{Figure: value} of one run of the benchmark, of what is ours."""
    json_file.unlink(missing_ok=True)
    run = running.run(part, build, json_file)
    if run.exit_code != 0:
        last = run.output.splitlines()[-1:] or ["no word"]
        raise RuntimeError(f"{build / 'bench' / part.benchmark} failed: {last[0]}")
    rows = json.loads(json_file.read_text(encoding="utf-8"))["figures"]
    values = {Figure(part.benchmark, row["group"], row["name"], row["unit"]): row["value"]
              for row in rows if row["name"] in part.ours and row["value"] > 0}
    if not values:
        raise RuntimeError(f"{build / 'bench' / part.benchmark} has none of {', '.join(part.ours)}")
    return values


def measure(part, builds, rounds, json_file):
    """{Figure: Comparison} of the first build to the second, which take turns: A B B A."""
    samples = ({}, {})
    for _ in range(rounds):
        for which in (0, 1, 1, 0):
            for figure, value in figures_of(part, builds[which], json_file).items():
                samples[which].setdefault(figure, []).append(figure.cost(value))
    return {figure: compare(costs, samples[1][figure])
            for figure, costs in samples[0].items() if figure in samples[1]}


def judge(part, builds, rounds, json_file):
    """[(Figure, Comparison, verdict)].  What seems slower must be so in a batch of its own, too."""
    first = measure(part, builds, rounds, json_file)
    suspects = {figure for figure, comparison in first.items() if comparison.is_slower}
    second = measure(part, builds, 2 * rounds, json_file) if suspects else {}
    rows = []
    for figure, comparison in first.items():
        verdict = "faster" if comparison.high < 1 / SLOWER else "same"
        if figure in suspects:
            comparison = second[figure]
            verdict = "slower" if comparison.is_slower else "same"
        rows.append((figure, comparison, verdict))
    return rows


def table(rows):
    yield "| what | this to the other: cost | verdict |"
    yield "|---|---|---|"
    for figure, each, verdict in rows:
        yield (f"| {figure} | {each.ratio:.3g} [{each.low:.3g}, {each.high:.3g}], "
               f"{each.pairs} pairs | {verdict} |")


def write(rows, doubts, commits, folder):
    title = f"# {commits[0]} against {commits[1]}"
    lines = [title, "", *table(rows), "", *(f"* {doubt}" for doubt in doubts), ""]
    (folder / "against.md").write_text("\n".join(lines), encoding="utf-8")
    answer = {"schema": "cowshed.bench-against/1", "commit": commits[0], "against": commits[1],
              "doubts": doubts,
              "figures": [{**dataclasses.asdict(figure), **dataclasses.asdict(each),
                           "verdict": verdict} for figure, each, verdict in rows]}
    (folder / "against.json").write_text(json.dumps(answer, indent=2), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(prog="bench/suite/against.py", description=__doc__)
    for name, what in (("build", "this build"), ("other", "the other commit's")):
        parser.add_argument(name, type=lambda text: pathlib.Path(text).resolve(), help=what)
    parser.add_argument("out", type=pathlib.Path, help="the folder to write to")
    parser.add_argument("--against", metavar="REV", required=True, help="that commit's name")
    parser.add_argument("--only", choices=plan.benchmarks(), help="one benchmark")
    parser.add_argument("--rounds", type=int, default=6, help="of two runs of each; twice as many "
                        "to confirm")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options.out.mkdir(parents=True, exist_ok=True)
    builds = (options.build, options.other)
    commits = (found.commit_of(SOURCE), options.against)
    rows, doubts, interrupted = [], [], False
    parts = [part for part in plan.AGAINST if options.only in (None, part.benchmark)]
    with tempfile.TemporaryDirectory(prefix="cowshed-bench-") as folder:
        try:
            for number, part in enumerate(parts, 1):
                print(f"[{number}/{len(parts)}] {found.command(part)}", flush=True)
                why = plan.why_not(part, options.build)
                if not why and not (options.other / "bench" / part.benchmark).exists():
                    why = f"{options.against} has no such benchmark"
                if why:
                    doubts.append(f"{found.command(part)} was skipped: {why}")
                    continue
                rows += judge(part, builds, options.rounds, pathlib.Path(folder) / "report.json")
        except KeyboardInterrupt:
            interrupted = True
            doubts.append("Interrupted: what comes later in the plan is not here")
    if not rows:
        doubts.append("Nothing was compared")
    write(rows, doubts, commits, options.out)
    print("\n".join([*table(rows), *(f"doubt: {doubt}" for doubt in doubts)]))
    slower = [figure for figure, _, verdict in rows if verdict == "slower"]
    for figure in slower:
        print(f"slower than {options.against}: {figure}")
    sys.exit(130 if interrupted else 1 if slower or not rows else 0)


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, subprocess.SubprocessError) as error:
        sys.exit(f"bench: {error}")
