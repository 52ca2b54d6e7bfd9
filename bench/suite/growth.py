"""How a cost grows with a number in its name: fits over figures that differ in nothing else.

A family is the figures whose names differ in one number with a unit ("64 MiB", "8 workers").  Two
things are said of it: the exponent at its upper end, which is the slope of log(cost) over log(x)
among the upper half of its points, at least three; and cost = a + b * x^k, a and b not negative, by
least squares of the relative errors.  The noise of a figure is that of its pairs: the interval of
its ratio to a rival, else of its group's control; where a report has neither, it is what the fit
leaves over.  Where the fit leaves more than the noise explains, the intervals grow by that."""
import dataclasses
import math
import re

# Not the senders of "4 to 1".
NUMBER = re.compile(r"(\d[\d,]*) (% [a-z]+|[KMGT]iB|B\b|(?!to\b)[a-z]+)")
BYTES = {"byte": 0, "B": 0, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4}
EXPONENTS = [step / 100 for step in range(-100, 301) if abs(step) > 2]  # 0 is the constant
NORMAL = 1.96  # half the width of a 95 % interval, in standard deviations
# The interval of so few pairs is their range, which is expected to be 1.13, 1.69 and 2.06 standard
# deviations of one wide; that of their median is 0.71, 0.67 and 0.55.
RANGE = {2: 1.6, 3: 2.5, 4: 3.8}  # of them
STUDENT = {1: 12.71, 2: 4.3, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36}
FLAT = 1.1  # where the noise is not known
LEGEND = """The *exponent* is the slope of log(cost) over log(x) among the upper half of the points, at
least three: 1 is proportional, 0 is flat. The *fit* is a + b x^k over all of them. In brackets are
95 % intervals, by the noise of the pairs; where a report has none (counts, memory), by what the line
leaves over. Two points have no fit, and *any* is one that the noise leaves open; *void*: so many of the points were measured where the same
against itself came out wrong."""


@dataclasses.dataclass(frozen=True)
class Point:
    x: float  # bytes, workers, ...
    cost: float
    noise: float | None  # of log(cost), standard deviation
    void: bool
    text: str  # of x


@dataclasses.dataclass(frozen=True)
class Interval:
    value: float
    low: float | None = None  # not known
    high: float | None = None
    void: bool = False  # by figures that are


@dataclasses.dataclass(frozen=True)
class Fit:
    """a + b * (x / scale)^k"""
    a: float
    b: float
    k: float
    scale: float

    def __call__(self, x):
        return self.a + self.b * (x / self.scale) ** self.k


@dataclasses.dataclass
class Family:
    benchmark: str
    what: str
    variable: str  # "data", "worker", ...
    unit: str  # of the cost; of a rate, of 1 / rate
    points: list

    @property
    def zeros(self):
        return sum(point.cost == 0 for point in self.points)

    @property
    def positive(self):
        return [point for point in self.points if point.cost > 0]

    @property
    def x_unit(self):
        return self.points[-1].text.split(" ", 1)[1]

    def exponent(self):
        """At the upper end."""
        if self.zeros == len(self.points):
            return Interval(0, 0, 0)
        points = self.positive
        points = points[-max(3, (len(points) + 1) // 2):]
        return slope(points) if len(points) > 1 else None

    def fits(self):
        """The best, and all that the noise cannot tell from it; none of fewer than three points."""
        return fits(self.positive) if len(self.positive) >= 3 else []

    def estimate(self, x, without_start=False):
        """The cost at an x beyond those that were measured, where it is not taken to fall on; or
        what of it is due to x."""
        last = self.points[-1].x
        values = [fit(x if fit.k >= 0 else min(x, last)) - (fit.a if without_start else 0)
                  for fit in self.fits()]
        return Interval(values[0], min(values), max(values),
                        any(point.void for point in self.points))

    def doubts(self):
        if len(self.points) < 3:
            yield f"{len(self.points)} points"
        void = sum(point.void for point in self.points)
        if void:
            yield f"void: {void} of {len(self.points)}"
        if 0 < self.zeros < len(self.points):
            yield f"0: {self.zeros} of {len(self.points)}"


def noise_of(row):
    """Of a ratio."""
    if row["low"] <= 0 or row["high"] <= row["low"] or math.isinf(row["high"]):
        return None
    return math.log(row["high"] / row["low"]) / RANGE.get(row.get("pairs"), 2 * NORMAL)


def void_groups(report):
    return {row["group"] for row in report["controls"] if row["void"]}


def noises(report):
    """(by group and figure, by group)"""
    by_figure = {}
    for row in report["ratios"]:
        name, to, _ = row["name"].rpartition(" to ")
        if to:
            by_figure[row["group"], name] = noise_of(row)
    by_group = {}
    for row in report["controls"]:  # both sides of which are as noisy
        noise = noise_of(row)
        by_group[row["group"]] = noise and noise / math.sqrt(2)
    return by_figure, by_group


def split(match):
    """(variable, x)"""
    number, unit = float(match[1].replace(",", "")), match[2]
    singular = unit.removesuffix("es") if unit.endswith("sses") else unit.removesuffix("s")
    if singular in BYTES:
        return "data", number * 1024 ** BYTES[singular]
    return singular, number


def cost_of(row):
    """Of a rate, what one takes."""
    is_rate = row["unit"].endswith("/s")
    return 1 / row["value"] if is_rate and row["value"] else row["value"]


def families(report):
    """Of two points or more."""
    by_figure, by_group = noises(report)
    void = void_groups(report)
    found = {}
    for row in report["figures"]:
        if row["name"].endswith(" again") or row["unit"] == "%":
            continue
        noise = by_figure.get((row["group"], row["name"])) or by_group.get(row["group"])
        path = f"{row['group']}/{row['name']}"
        for match in NUMBER.finditer(path):
            variable, x = split(match)
            gap = "\0" if variable == "data" or match[0] in path.split("/") else f"… {match[2]}"
            what = path[:match.start()] + gap + path[match.end():]
            what = "/".join(part for part in what.split("/") if part != "\0").replace("\0", "…")
            rate = row["unit"].removesuffix("/s")
            unit = row["unit"] if rate == row["unit"] else f"s/{rate}"
            family = found.setdefault((what, variable, unit),
                                      Family(report["benchmark"], what, variable, unit, []))
            family.points.append(Point(x, cost_of(row), noise, row["group"] in void, match[0]))
    for family in found.values():
        family.points.sort(key=lambda point: point.x)
    return [family for family in found.values()
            if len({point.x for point in family.points}) == len(family.points) > 1]


def slope(points):
    xs = [math.log(point.x) for point in points]
    ys = [math.log(point.cost) for point in points]
    middle = sum(xs) / len(xs)
    spread = sum((x - middle) ** 2 for x in xs)
    weights = [(x - middle) / spread for x in xs]
    value = sum(weight * y for weight, y in zip(weights, ys))
    height = sum(ys) / len(ys)
    left = [y - height - value * (x - middle) for x, y in zip(xs, ys)]
    free = len(points) - 2
    if all(point.noise for point in points):
        noise = [point.noise for point in points]
        excess = max(1, sum((y / n) ** 2 for y, n in zip(left, noise)) / free) if free else 1
        error = NORMAL * math.sqrt(excess * sum((w * n) ** 2 for w, n in zip(weights, noise)))
    elif free:
        error = STUDENT.get(free, NORMAL) * math.sqrt(sum(y * y for y in left) / free / spread)
    else:
        return Interval(value)
    return Interval(value, value - error, value + error)


def fit_for(k, points, weights, scale):
    """The best a and b; and how far it is off."""
    powers = [(point.x / scale) ** k for point in points]
    costs = [point.cost for point in points]
    one = sum(weights)
    p = sum(w * f for w, f in zip(weights, powers))
    pp = sum(w * f * f for w, f in zip(weights, powers))
    y = sum(w * c for w, c in zip(weights, costs))
    py = sum(w * f * c for w, f, c in zip(weights, powers, costs))
    determinant = one * pp - p * p
    a, b = (y * pp - p * py) / determinant, (one * py - p * y) / determinant
    if a < 1e-9 * points[-1].cost:
        a, b = 0, py / pp
    elif b < 0:
        a, b = y / one, 0
    off = sum(w * (c - a - b * f) ** 2 for w, f, c in zip(weights, powers, costs))
    return off, Fit(a, b, k, scale)


def constant_for(points, weights, scale):
    """The same without growth, by logarithms: else what is small weighs more than it should."""
    weights = [w * point.cost ** 2 for w, point in zip(weights, points)]
    logs = [math.log(point.cost) for point in points]
    middle = sum(w * log for w, log in zip(weights, logs)) / sum(weights)
    return sum(w * (log - middle) ** 2 for w, log in zip(weights, logs)), \
        Fit(math.exp(middle), 0, 0, scale)


def fits(points):
    has_noise = all(point.noise for point in points)
    weights = [1 / (point.cost * (point.noise if has_noise else 1)) ** 2 for point in points]
    constant_off, constant = constant_for(points, weights, points[-1].x)
    every = [fit_for(k, points, weights, points[-1].x) for k in EXPONENTS]
    least, best = min(every, key=lambda each: each[0])
    free = len(points) - 3
    if has_noise:
        allowed = NORMAL ** 2 * (max(1, least / free) if free else 1)
        is_flat = constant_off <= least + allowed
    else:
        allowed = STUDENT.get(free, NORMAL) ** 2 * least / free if free else 0
        costs = [point.cost for point in points]
        is_flat = max(costs) < FLAT * min(costs)
    if is_flat:
        return [constant]
    return [best, *(fit for off, fit in every if off <= least + allowed and fit is not best)]


def number(value):
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def with_interval(interval, text=number):
    if interval.low is None or interval.low == interval.high:
        return text(interval.value)
    return f"{text(interval.value)} [{text(interval.low)}, {text(interval.high)}]"


def formula(family):
    """The fit in words."""
    every = family.fits()
    if family.zeros == len(family.points):
        return "0"
    if not every:
        return ""
    best = every[0]
    if best.b == 0:
        return f"{number(best.a)} {family.unit}, flat".replace(" ,", ",")
    ks = [fit.k for fit in every]
    if (min(ks), max(ks)) == (EXPONENTS[0], EXPONENTS[-1]):
        return "any"
    variable, one = split(NUMBER.fullmatch(f"1 {family.x_unit}"))
    unit = family.x_unit if variable == "data" else variable
    k = with_interval(Interval(best.k, min(ks), max(ks)))
    return (f"{number(best.a)} + {number(best.b * (one / best.scale) ** best.k)} "
            f"{family.unit} × {unit}^{k}").replace("  ", " ")


def exponent_text(family):
    exponent = family.exponent()
    return "" if exponent is None else with_interval(exponent, lambda value: f"{value:.2f}")


def table(all_families):
    yield "| benchmark | cost | with | from | to | exponent | fit | doubt |"
    yield "|---|---|---|---|---|---|---|---|"
    for family in all_families:
        yield (f"| {family.benchmark} | {family.what} | {family.variable} | "
               f"{family.points[0].text} | {family.points[-1].text} | {exponent_text(family)} | "
               f"{formula(family)} | {', '.join(family.doubts())} |")
