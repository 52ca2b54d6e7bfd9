#!/usr/bin/env python3
"""Fits of costs whose growth is known; and what the documentation's own tables give."""

import math
import pathlib
import sys
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.append(str(SOURCE / "bench/suite"))

import growth  # noqa: E402
import page  # noqa: E402

SIZES = ("64 MiB", "512 MiB", "4 GiB", "12 GiB")
MIB = (64, 512, 4096, 12288)


def figures(costs, names=SIZES, group="heap", unit="us"):
    return [{"group": group, "name": name, "value": cost, "unit": unit}
            for name, cost in zip(names, costs)]


def report(rows, noise=None, void=False):
    """noise: of the groups' controls, as a factor."""
    groups = {row["group"] for row in rows}
    controls = [{"group": group, "measured": 1, "low": 1 / noise, "high": noise, "void": void}
                for group in groups] if noise else []
    return {"benchmark": "b", "figures": rows, "ratios": [], "controls": controls}


def only(rows, **how):
    found = growth.families(report(rows, **how))
    assert len(found) == 1, found
    return found[0]


class FamiliesTest(unittest.TestCase):
    def test_differ_in_one_number_alone(self):
        rows = [row for workers in ("1 worker", "8 workers", "64 workers") for size in SIZES[:2]
                for row in figures([1], [workers], f"start/{size}")]
        families = growth.families(report(rows))
        self.assertCountEqual([(f.what, f.variable, len(f.points)) for f in families],
                              [("start/64 MiB", "worker", 3), ("start/512 MiB", "worker", 3),
                               ("start/1 worker", "data", 2), ("start/8 workers", "data", 2),
                               ("start/64 workers", "data", 2)])

    def test_a_number_within_a_name_leaves_its_gap(self):
        names = ("read, 1 % freed", "read, 10 % freed", "read, 100 % freed")
        self.assertEqual(only(figures([1, 2, 3], names)).what, "heap/read, … % freed")

    def test_sizes_of_all_units_are_one_axis(self):
        family = only(figures([1, 2, 3], ("64 bytes", "4 KiB", "1 GiB")))
        self.assertEqual([point.x for point in family.points], [64, 4096, 2 ** 30])

    def test_bytes_are_one_axis_with_their_multiples_and_senders_are_no_size(self):
        rows = [row for size in ("8 B", "64 B", "4 KiB", "64 B, 4 to 1", "64 B, 1 to 4")
                for row in figures([1], ["pipe"], f"rate/{size}")]
        families = growth.families(report(rows))
        self.assertEqual([[point.x for point in family.points] for family in families],
                         [[8, 64, 4096]])

    def test_controls_shares_and_single_figures_are_none(self):
        rows = figures([1, 2], ("64 MiB again", "4 GiB again"))
        rows += figures([1, 2], unit="%") + figures([1], ("8 threads",)) + figures([1], ("none",))
        self.assertEqual(growth.families(report(rows)), [])

    def test_of_a_rate_less_is_more(self):
        family = only(figures([4, 2, 1], ("1 thread", "2 threads", "4 threads"), unit="million/s"))
        self.assertEqual(family.unit, "s/million")
        self.assertAlmostEqual(family.exponent().value, 1)


class FitTest(unittest.TestCase):
    def test_a_constant_and_a_power(self):
        for k in (0.5, 1, 1.5, 2):
            family = only(figures([100 + 0.7 * mib ** k for mib in MIB]), noise=1.1)
            fits = family.fits()
            ks = [fit.k for fit in fits]
            self.assertAlmostEqual(fits[0].k, k, delta=0.03)
            self.assertLessEqual(min(ks), k)
            self.assertGreaterEqual(max(ks), k)
            self.assertGreater(max(ks) - min(ks), 0)
            estimate = family.estimate(2 ** 40)
            truth = 100 + 0.7 * (2 ** 20) ** k
            self.assertLessEqual(estimate.low, truth * 1.01)
            self.assertGreaterEqual(estimate.high, truth * 0.99)

    def test_what_is_flat_within_the_noise_is_flat(self):
        family = only(figures([100, 103, 98, 101]), noise=1.1)
        self.assertIn("flat", growth.formula(family))
        exponent = family.exponent()
        self.assertLess(exponent.low, 0)
        self.assertGreater(exponent.high, 0)
        self.assertAlmostEqual(family.estimate(2 ** 40).value, 100, delta=5)

    def test_what_falls_is_not_taken_to_fall_on(self):
        family = only(figures([1000, 300, 100, 60]), noise=1.02)
        self.assertLess(family.fits()[0].k, 0)
        self.assertAlmostEqual(family.estimate(2 ** 40).value / 60, 1, delta=0.2)

    def test_what_is_due_to_the_size_is_without_the_start(self):
        family = only(figures([100 + mib for mib in MIB]), noise=1.01)
        self.assertAlmostEqual(family.estimate(2 ** 40, without_start=True).value / 2 ** 20, 1, 1)

    def test_a_range_of_few_pairs_is_more_noise_than_as_wide_an_interval_of_many(self):
        row = {"low": 1, "high": 2}
        self.assertGreater(growth.noise_of({**row, "pairs": 2}), 2 * growth.noise_of(row))

    def test_what_grows_is_not_flat_where_the_noise_is_unknown(self):
        names = ("1 worker", "8 workers", "64 workers", "256 workers")
        family = only(figures([1720, 4484, 15382, 60036], names, unit="KiB"))
        self.assertAlmostEqual(family.estimate(1000).value / 230000, 1, 0)
        self.assertIn("flat", growth.formula(only(figures([100, 103, 98, 101], names))))

    def test_the_exponent_is_of_the_upper_end(self):
        self.assertGreater(only(figures([1000, 1001, 2000, 6000])).exponent().value, 0.5)

    def test_more_noise_is_a_wider_interval(self):
        costs = [mib * 1.0 for mib in MIB]
        widths = []
        for noise in (1.05, 1.5):
            exponent = only(figures(costs), noise=noise).exponent()
            self.assertAlmostEqual(exponent.value, 1)
            widths.append(exponent.high - exponent.low)
        self.assertGreater(widths[1], 5 * widths[0])

    def test_the_noise_is_that_of_the_figures_own_ratio(self):
        rows = figures(MIB)
        loud = report(rows, noise=1.001)
        loud["ratios"] = [{"group": "heap", "name": f"{name} to none", "low": 1, "high": 4}
                          for name in SIZES]
        wide = growth.families(loud)[0].exponent()
        narrow = only(rows, noise=1.001).exponent()
        self.assertGreater(wide.high - wide.low, 10 * (narrow.high - narrow.low))

    def test_what_the_line_leaves_over_widens_it(self):
        exponents = [only(figures(costs), noise=1.01).exponent()
                     for costs in ([10, 20, 40, 68], [10, 20, 10, 60])]
        straight, crooked = (each.high - each.low for each in exponents)
        self.assertGreater(crooked, 3 * straight)

    def test_without_noise_it_is_the_residuals(self):
        exponent = only(figures([64, 520, 4000, 12400])).exponent()
        self.assertLess(exponent.low, 1)
        self.assertGreater(exponent.high, 1)

    def test_two_points_are_flagged_and_not_fitted(self):
        family = only(figures([1, 8], SIZES[:2]))
        self.assertEqual(list(family.doubts()), ["2 points"])
        self.assertEqual(family.fits(), [])
        self.assertAlmostEqual(family.exponent().value, 1)
        self.assertIsNone(family.exponent().low)

    def test_void_points_are_flagged(self):
        self.assertEqual(list(only(figures(MIB), noise=2, void=True).doubts()), ["void: 4 of 4"])

    def test_zeros(self):
        nothing = only(figures([0, 0, 0]))
        self.assertEqual(nothing.exponent().value, 0)
        self.assertEqual(growth.formula(nothing), "0")
        some = only(figures([0, 1, 8, 24]))
        self.assertEqual(list(some.doubts()), ["0: 1 of 4"])
        self.assertAlmostEqual(some.exponent().value, 1, 2)


class DocumentationTest(unittest.TestCase):
    """The tables of docs/performance.md, read back."""

    def setUp(self):
        self.path = SOURCE / "docs/performance.md"
        self.reports = page.read([self.path])

    def test_every_row_is_read(self):
        rows = sum(len(report[kind]) for report in self.reports.values()
                   for kind in ("figures", "ratios", "controls"))
        lines = [line for line in self.path.read_text(encoding="utf-8").splitlines()
                 if line.startswith("| ") and line.count(" | ") == 2
                 and not line.startswith("| group |")]
        self.assertEqual(rows, len(lines))

    def test_forks_grow_with_heaps_and_not_with_arenas(self):
        families = {family.what: family for family in
                    growth.families(self.reports["fork_latency"])}
        self.assertTrue({"arena/objects", "heap/objects"} <= set(families))
        for family in families.values():
            exponent = family.exponent()
            self.assertTrue(math.isfinite(exponent.value))
            self.assertLessEqual(exponent.low, exponent.value)


if __name__ == "__main__":
    unittest.main(verbosity=2)
