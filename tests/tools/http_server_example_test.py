#!/usr/bin/python3
"""docs/examples/http_server: what its README says of it holds."""
import glob
import json
import os
import subprocess
import unittest

EXAMPLE = os.environ["EXAMPLE"]


class HttpServerExample(unittest.TestCase):
    @unittest.skipUnless(glob.glob("/var/lib/apt/lists/*_Packages*"), "no package lists here: run apt-get update")
    def test_the_workers_copy_the_heap_and_not_the_arena(self):
        # It fails too when the answers differ or a worker does not end well.
        measured = subprocess.run(
            [EXAMPLE + "/measure", "--build", os.environ["BUILD"], "--json", "--workers", "2", "--clients", "4",
             "--requests", "400"], capture_output=True, text=True)
        self.assertEqual(measured.returncode, 0, measured.stderr)
        runs = json.loads(measured.stdout)
        self.assertEqual(runs["before"]["answers"], runs["after"]["answers"])
        self.assertEqual(runs["after"]["requests"], 400)
        self.assertEqual([len(runs[run]["workers"]) for run in ("before", "after")], [2, 2])
        self.assertGreater(runs["before"]["memory_bytes"], 1.5 * runs["after"]["memory_bytes"])
        self.assertGreater(runs["before"]["peak_memory_bytes"], runs["after"]["peak_memory_bytes"])
        for before, after in zip(runs["before"]["workers"], runs["after"]["workers"]):
            self.assertEqual(before["arenas"], [])
            self.assertEqual([arena["name"] for arena in after["arenas"]], ["catalogue"])
            self.assertEqual(after["arenas"][0]["copied_pages"], 0)
            self.assertGreater(before["copied_bytes"], 0.5 * after["arenas"][0]["bytes"])
            self.assertGreater(before["copied_bytes"], 10 * after["copied_bytes"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
