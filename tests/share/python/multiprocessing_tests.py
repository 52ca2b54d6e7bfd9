"""Runs CPython's own tests of queues and pipes, unmodified, on ours: multiprocessing_tests.py METHOD"""

import multiprocessing
import sys
import unittest

import cowshed
from test import _test_multiprocessing as tests

# Those that do not apply, and why.
APART = {
    "test_fd_transfer": "sends descriptors through fileno(), which is no socket here",
    "test_large_fd_transfer": "the same",
    "test_missing_fd_transfer": "the same",
    "test_queue_feeder_donot_stop_onexc": "there is no feeder thread: put() raises what pickling raises",
}


class Ours(tests.ProcessesMixin):
    Queue = staticmethod(cowshed.Queue)
    Pipe = staticmethod(cowshed.Pipe)
    SimpleQueue = staticmethod(cowshed.SimpleQueue)
    connection = multiprocessing.connection


def on_ours(name):
    made = type(name, (getattr(tests, name), Ours, unittest.TestCase), {"__module__": __name__})
    for test in APART.keys() & dir(made):
        setattr(made, test, None)
    return made


_TestQueue = on_ours("_TestQueue")
_TestConnection = on_ours("_TestConnection")
_TestPoll = on_ours("_TestPoll")

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv.pop(), force=True)
    unittest.main()
