"""The reports that docs/performance.md was made of, as far as it has them."""
import json
import pathlib
import re

NUMBER = r"([\d.e+-]+|inf)"
MEASURED = re.compile(rf"{NUMBER}(?: \[{NUMBER}, {NUMBER}\])?")
VOID = ": **void**"


KINDS = ("goals", "figures", "ratios", "controls")


def merge(reports, report):
    """Several runs of one benchmark, each of other groups, are one report: {benchmark: report}."""
    known = reports.setdefault(report["benchmark"], report)
    if known is not report:
        for kind in KINDS:
            known[kind] += report[kind]
        known["settings"] += [row for row in report["settings"] if row not in known["settings"]]


def measured(cell):
    value, low, high = MEASURED.fullmatch(cell).groups()
    return {"measured": float(value), "low": float(low or value), "high": float(high or value)}


def pairs_in(text):
    """{group, or its folder: pairs}; or of all, {"": pairs}: as bench/performance_page has them."""
    said = re.search(r" Pairs: (.*)\.$", text, re.MULTILINE)
    found = {}
    for count, groups in re.findall(r"(\d+)(?: \(([^)]*)\))?", said[1] if said else ""):
        found.update({group: int(count) for group in groups.split("; ")} if groups else {"": int(count)})
    return found


def report_of(benchmark, text):
    report = {"benchmark": benchmark, "goals": [], "figures": [], "ratios": [], "controls": []}
    pairs = pairs_in(text)

    def compared(group, value):
        row = {"group": group, **measured(value)}
        count = pairs.get(group, pairs.get(group.partition("/")[0], pairs.get("")))
        return {**row, "pairs": count} if count else row

    kind = None
    for line in text.splitlines():
        cells = line.strip("| ").split(" | ") if line.startswith("| ") else []
        if kind == "goal" and len(cells) == 4:
            what, limit, value, verdict = cells
            report["goals"].append({"what": what, "limit": limit, "verdict": verdict,
                                    **measured(value)})
            continue
        if len(cells) != 3 or cells[:2] in (["group", "figure"], ["group", "ratio"]):
            kind = ("goal" if cells and cells[0] == "goal" else
                    cells[1] if cells and cells[0] == "group" else kind if line else None)
            continue
        group, name, value = cells
        if kind == "figure":
            number, _, unit = value.partition(" ")
            report["figures"].append({"group": group, "name": name, "value": float(number),
                                      "unit": unit})
        elif kind == "ratio" and name.startswith("the same against itself"):
            report["controls"].append({**compared(group, value), "void": name.endswith(VOID)})
        elif kind == "ratio":
            report["ratios"].append({**compared(group, value), "name": name})
    return report


def read(paths):
    """{benchmark: report} of such pages and of the benchmarks' own reports."""
    reports, of_json = {}, {}
    for path in map(pathlib.Path, paths):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            merge(of_json, json.loads(text))
        else:
            sections = re.split(r"^## (\w+)$", text, flags=re.MULTILINE)[1:]
            reports.update({name: report_of(name, section)
                            for name, section in zip(sections[::2], sections[1::2])})
    return {**reports, **of_json}
