"""Pictures of a report, that can be read small, in black and white, and on a dark page: large
letters, markers and dashes instead of colours, and a white ground of their own."""
import matplotlib

matplotlib.use("svg")
# The same results give the same file.
matplotlib.rcParams.update({"svg.hashsalt": "cowshed", "font.size": 11, "axes.grid": True,
                            "grid.color": "0.85", "axes.axisbelow": True, "lines.markersize": 7,
                            "legend.framealpha": 1, "axes.spines.top": False,
                            "axes.spines.right": False})
from matplotlib import pyplot  # noqa: E402  after the backend is chosen
from matplotlib.ticker import LogLocator, NullLocator, SymmetricalLogLocator  # noqa: E402

import growth  # noqa: E402
import seal  # noqa: E402

WIDTH = 6.4  # inches
ROW = 0.3
STYLES = [("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"), ("v", "-"), ("P", "--"), ("X", "-."),
          ("*", ":")]
VERDICTS = {"met": ("o", "black"), "undecided": ("D", "white"), "missed": ("X", "black"),
            "void": ("X", "white")}
FIGURES_IN_A_PICTURE = 24
LONG_NAME = 28  # of a group: too long for two beside each other
GOALS_IN_A_PICTURE = 10


def number(value):
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def style(index):
    marker, dashes = STYLES[index % len(STYLES)]
    return {"marker": marker, "linestyle": dashes, "color": "black",
            "markerfacecolor": "white" if index % 2 else "black"}


def save(figure, path):
    try:
        figure.savefig(path, facecolor="white", bbox_inches="tight", metadata={"Date": None})
        path.write_text(seal.sealed(path.read_text(encoding="utf-8")), encoding="utf-8")
    except OSError:
        path.unlink(missing_ok=True)  # no half of one
        raise
    finally:
        pyplot.close(figure)
    return path


def in_decades(axis, values):
    """Plain numbers along a logarithmic axis: 1 2 5 10 where there is room, else 1 10 100."""
    few = max(values) < 300 * min(values)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M" if value >= 1e6 else
                             f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axis.set_minor_formatter("")


def goals(report, rows, path):
    """Each goal as the share of its limit that is used up: beyond 1 it is missed."""
    figure, axes = pyplot.subplots(figsize=(WIDTH, 0.9 + 2 * ROW * len(rows)))

    def used(row, value):
        part, whole = (value, row["limit"]) if row["bound"] == "at_most" else (row["limit"], value)
        share = part / whole if whole else 100 if part else 1
        return min(max(share, 0.01), 100)

    for place, row in enumerate(rows):
        low, high = sorted((used(row, row["low"]), used(row, row["high"])))
        marker, face = VERDICTS[row["verdict"]]
        axes.plot([low, high], [place, place], color="black", linewidth=2, solid_capstyle="butt")
        axes.plot([used(row, row["measured"])], [place], marker, color="black", markersize=9,
                  markerfacecolor=face)
        text = (f"{row['what']}: {number(row['measured'])}, {row['bound'].replace('_', ' ')} "
                f"{number(row['limit'])} {row['unit']}").strip()
        axes.annotate(text, (0, place), (2, 9), xycoords=("axes fraction", "data"),
                      textcoords="offset points", fontsize=10,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})
    axes.axvline(1, color="black", linestyle="--")
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0.3), max(high, 3))
    in_decades(axes.xaxis, axes.get_xlim())
    axes.set_ylim(len(rows) - 0.5, -1)
    axes.set_yticks([])
    axes.set_xlabel("share of the limit used (right of the dashes: missed)")
    for verdict, (marker, face) in VERDICTS.items():
        axes.plot([], [], marker, color="black", markerfacecolor=face, markersize=9, label=verdict)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncol=len(VERDICTS), frameon=False,
                columnspacing=1, handletextpad=0.3)
    axes.set_title(report["benchmark"], pad=28, fontweight="bold")
    return save(figure, path)


def by_part(series, part_of):
    """[{path: ...}]: as many together as there are markers, else those whose path has that part."""
    if len(series) <= len(STYLES):
        return [series]
    parts = {}
    for path, content in series.items():
        parts.setdefault(part_of(path), {})[path] = content
    return list(parts.values())


def by_folder(series):
    """The same by folder, and one that is too large by what is measured: "pipe, p99"."""
    return [few for folder in by_part(series, lambda path: path.rpartition("/")[0])
            for few in by_part(folder, lambda path: path.rpartition(", ")[2])]


def panels(report):
    """[(names, unit, {group: values})]: groups that tell of the same things in one."""
    by_group = {}
    void = growth.void_groups(report)
    for row in report["figures"]:
        group = f"{row['group']} (void)" if row["group"] in void else row["group"]
        by_group.setdefault((group, row["unit"]), []).append((row["name"], row["value"]))
    together = {}
    for (group, unit), figures in by_group.items():
        names = tuple(name for name, _ in figures)
        together.setdefault((names, unit), {})[group] = [value for _, value in figures]
    return [(names, unit, groups) for (names, unit), every in together.items()
            for groups in by_folder(every)]


def legend_columns(groups):
    return 2 if max(map(len, groups)) <= LONG_NAME else 1


def draw_panel(axes, names, unit, groups):
    places = range(len(names))
    for index, (group, values) in enumerate(groups.items()):
        axes.plot(values, places, **{**style(index), "linestyle": ""}, label=group,
                  clip_on=False)
        if len(groups) == 1:
            for place, value in zip(places, values):
                axes.annotate(number(value), (value, place), (7, 0), va="center", fontsize=10,
                              textcoords="offset points")
    every = [value for values in groups.values() for value in values]
    above = [value for value in every if value > 0]
    if above and max(above) > 10 * min(above):
        if len(above) == len(every):
            axes.set_xscale("log")
        else:  # a place for 0 left of the decades
            axes.set_xscale("symlog", linthresh=min(above), linscale=0.5)
        in_decades(axes.xaxis, above)
        if len(above) < len(every):
            axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=min(above)))
    else:
        axes.set_xlim(0, max(max(every), 1e-9) * 1.2)
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(unit or "count")
    if len(groups) == 1:
        axes.set_title(next(iter(groups)), loc="left", fontsize=11)
    else:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncol=legend_columns(groups),
                    frameon=False, fontsize=10, columnspacing=1, handletextpad=0.3)


def figures(report, path):
    """Medians, in several pictures where there are many."""
    pictures = [[]]
    for panel in panels(report):
        if pictures[-1] and sum(len(p[0]) for p in pictures[-1] + [panel]) > FIGURES_IN_A_PICTURE:
            pictures.append([])
        pictures[-1].append(panel)
    for index, picture in enumerate(pictures, 1):
        heights = [1 + len(names) + -(-len(groups) // legend_columns(groups))
                   for names, _, groups in picture]
        figure, axes = pyplot.subplots(len(picture), 1, squeeze=False, layout="constrained",
                                       figsize=(WIDTH, 0.6 + sum(ROW * (h + 2) for h in heights)),
                                       gridspec_kw={"height_ratios": heights})
        for panel, place in zip(picture, axes[:, 0]):
            draw_panel(place, *panel)
        figure.suptitle(f"{report['benchmark']}: medians", fontweight="bold")
        yield save(figure, path.with_name(f"{path.stem}-{index}.svg"))


def draw_family(axes, family, index):
    """Its points, and the line that was fitted to them; or that they are 0."""
    look = style(index)
    xs = [point.x for point in family.points]
    costs = [point.cost for point in family.points]
    every = family.fits()
    steps = [xs[0] * (xs[-1] / xs[0]) ** (step / 50) for step in range(51)] if every else xs
    axes.plot(steps, [every[0](x) for x in steps] if every else costs, linewidth=1.2,
              **{**look, "marker": ""})
    axes.plot(xs, costs, **{**look, "linestyle": ""})
    void = ", void" if any(point.void for point in family.points) else ""
    axes.plot([], [], label=f"{family.what}: {growth.exponent_text(family)}{void}", **look)


def growths(report, path):
    """What is told of three sizes, numbers of workers, ... or more, against these, both axes
    logarithmic, with the exponents at the upper end."""
    together = {}
    for family in growth.families(report):
        if len(family.points) >= 3:
            key = (family.variable, family.unit)
            together.setdefault(key, {})[family.what] = family
    pictures = [(variable, unit, families) for (variable, unit), every in together.items()
                for families in by_folder(every)]
    for index, (variable, unit, families) in enumerate(pictures, 1):
        figure, axes = pyplot.subplots(figsize=(WIDTH, 3.2 + 0.22 * len(families)),
                                       layout="constrained")
        for number_of_line, family in enumerate(families.values()):
            draw_family(axes, family, number_of_line)
        points = {point.x: point.text for family in families.values() for point in family.points}
        axes.set_xscale("log")
        axes.set_xticks(list(points), [text if variable == "data" else text.split(" ")[0]
                                       for text in points.values()])
        axes.xaxis.set_minor_locator(NullLocator())
        costs = [point.cost for family in families.values() for point in family.points]
        if min(costs) > 0:
            axes.set_yscale("log")
            in_decades(axes.yaxis, costs)
        else:  # where nothing grows, that is to be seen
            axes.set_yscale("symlog", linthresh=1)
            axes.set_ylim(bottom=-0.5)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("" if variable == "data" else points[max(points)].split(" ", 1)[1])
        axes.set_ylabel(unit or "count")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, fontsize=10)
        figure.suptitle(f"{report['benchmark']}: growth, with exponents [95 %]", fontweight="bold")
        yield save(figure, path.with_name(f"{path.stem}-{index}.svg"))


def draw(report, folder):
    """The files."""
    name = report["benchmark"]
    rows = report["goals"]
    files = [goals(report, rows[first:first + GOALS_IN_A_PICTURE],
                   folder / f"{name}.goals-{1 + first // GOALS_IN_A_PICTURE}.svg")
             for first in range(0, len(rows), GOALS_IN_A_PICTURE)]
    if report["figures"]:
        files += figures(report, folder / f"{name}.figures.svg")
    return files + list(growths(report, folder / f"{name}.growth.svg"))
