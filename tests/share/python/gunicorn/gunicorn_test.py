"""Tests gunicorn with a Django application, by plain fork, with gc.freeze() and with cowshed.freeze()."""

import unittest

from measure import measure


class GunicornTest(unittest.TestCase):
    def test_memory_answers_and_end(self):
        of = {mode: measure(mode, "read", 1000) for mode in ("plain", "gc.freeze", "cowshed")}
        for each in of.values():
            print(each)
            self.assertEqual((each["exit"], each["exits"], each["log_is_whole"]), (0, 0, True))
            self.assertEqual(each["answers"], of["plain"]["answers"])
            self.assertGreater(each["master_rss"], 250)
        ours = of["cowshed"]
        self.assertLess(ours["pss"], 0.3 * min(of["plain"]["pss"], of["gc.freeze"]["pss"]))
        self.assertLess(ours["private_each"], 5)
        self.assertLess(ours["peak_at_stop"], 1.2 * ours["pss"])


if __name__ == "__main__":
    unittest.main()
