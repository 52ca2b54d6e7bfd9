"""The plots of the page."""
import html
import math


def nice_time(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.3g} ns"


COLOURS = ("#2f81f7", "#db6d28", "#2da44e", "#a371f7")


def chart(title, rows, series):
    """An SVG, in its reader's light or dark mode.  Per row and series a mark at the median and a line over the
    interval, on a logarithmic scale.  `rows`: names by key; `series`: by name, figures in ns by key."""
    rows = [(key, name.replace("`", "")) for key, name in rows.items() if any(of.get(key) for of in series.values())]
    shown = [ns for of in series.values() for figure in of.values() if figure for ns in figure]
    ticks = [digit * 10**zeros for zeros in range(12) for digit in (1, 2, 5)]
    least, most = max(ns for ns in ticks if ns <= min(shown)), min(ns for ns in ticks if ns >= max(shown))
    ticks = [ns for ns in ticks if least <= ns <= most and (most < 100 * least or str(ns)[0] == "1")]
    left, right, top, step = 160, 700, 60, 7
    tall = step * len(series) + 6
    bottom = top + tall * len(rows)

    def x(ns):
        return round(left + 10 + (right - left - 30) * math.log(ns / least) / math.log(most / least))

    def text(at, y, words, anchor="start"):
        return f'<text x="{at}" y="{y}" text-anchor="{anchor}">{html.escape(words)}</text>'

    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{right}" height="{bottom + 28}" role="img">', "<style>",
             "svg { font: 12px sans-serif; background: #fff } text { fill: #1f2328 } path { fill: none }",
             ".grid { stroke: #d1d9e0 } .mark { stroke-width: 7; stroke-linecap: round } .span { stroke-width: 1.5 }",
             "@media (prefers-color-scheme: dark) {",
             "  svg { background: #0d1117 } text { fill: #f0f6fc } .grid { stroke: #3d444d }", "}", "</style>",
             text(10, 20, f"{title} (logarithmic; lines: the intervals)"),
             f'<path class="grid" d="{"".join(f"M{x(ns)} {top}V{bottom}" for ns in ticks)}"/>',
             f'<path class="grid" d="{"".join(f"M10 {top + tall * row}H{right - 10}" for row in range(len(rows) + 1))}"/>',
             *(text(x(ns), bottom + 18, nice_time(ns), "middle") for ns in ticks),
             *(text(left - 6, top + tall * row + tall // 2 + 4, name, "end") for row, (_, name) in enumerate(rows))]
    for number, (name, of) in enumerate(series.items()):
        places = [(top + tall * row + step * number + 7, *of[key]) for row, (key, _) in enumerate(rows) if of.get(key)]
        at = 10 + number * (right - 20) // len(series)
        marks = f"M{at + 4} 42h0" + "".join(f"M{x(middle)} {y}h0" for y, middle, _, _ in places)
        spans = "".join(f"M{x(low)} {y}H{x(high)}" for y, _, low, high in places)
        lines += [text(at + 14, 46, name), f'<path class="span" stroke="{COLOURS[number]}" d="{spans}"/>',
                  f'<path class="mark" stroke="{COLOURS[number]}" d="{marks}"/>']
    return "\n".join([*lines, "</svg>", ""])
