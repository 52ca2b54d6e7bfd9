#!/usr/bin/env python3
"""Runs the benchmarks of a build folder one after another, and writes OUT/results.csv and
OUT/performance.md.  ./tools/bench calls it."""
import argparse
import csv
import json
import pathlib
import subprocess
import sys
import tempfile

BENCHMARKS = ["fork", "fill", "freeze", "deref", "channel", "start", "measuring", "own_cost"]
COLUMNS = ["benchmark", "group", "name", "value", "low", "high", "unit", "bound", "limit", "verdict"]


def rows_of(report):
    """One row each for figures, ratios, the same against itself, and goals."""
    for row in report["figures"]:
        yield row
    for row in report["ratios"]:
        yield {**row, "value": row["measured"]}
    for row in report["controls"]:
        yield {**row, "name": "the same against itself", "value": row["measured"],
               "verdict": "void" if row["void"] else ""}
    for row in report["goals"]:
        yield {**row, "name": row["what"], "value": row["measured"]}


def number(value):
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def markdown(report, rows, arguments):
    yield f"\n## {report['benchmark']}\n"
    yield f"`build/release/bench/{report['benchmark']}{''.join(' ' + each for each in arguments)}`: "\
          f"{report['question']}.\n"
    yield from (f"* {row['name']}: {row['text']}" for row in report["settings"])
    yield "\n| group | what | measured | limit | verdict |\n|---|---|---|---|---|"
    for row in rows:
        interval = f" [{number(row['low'])}, {number(row['high'])}]" if "low" in row else ""
        limit = f"{row['bound'].replace('_', ' ')} {number(row['limit'])}" if "limit" in row else ""
        yield (f"| {row['group']} | {row['name']} | {number(row['value'])} {row.get('unit', '')}{interval} "
               f"| {limit} | {row.get('verdict', '')} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=BENCHMARKS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    arguments = ["--quick"] if options.quick else []
    page, table, failed = [], [], []
    for name in [options.only] if options.only else BENCHMARKS:
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            run = subprocess.run([options.build / "bench" / name, *arguments, "--json", file.name], check=False)
            if run.returncode != 0:
                failed.append(name)
                continue
            report = json.load(file)
        rows = list(rows_of(report))
        table += [{"benchmark": name, **row} for row in rows]
        page += markdown(report, rows, arguments)
        about = report["machine"]
    if table:
        head = [f"# {about['processor']}, {about['cores']} cores, {about['memory_bytes'] >> 30} GiB, "
                f"Linux {about['kernel']}, THP `{about['thp']}`"]
        (options.out / "performance.md").write_text("\n".join(head + page) + "\n", encoding="utf-8")
        with open(options.out / "results.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(table)
        print(f"written: {options.out}/performance.md and results.csv")
    if failed:
        sys.exit(f"error: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
