"""A user's report each, of what fails with Python's multiprocessing: the program, and the same with Cowshed.

Arguments as unittest's.  LargeMessages takes 5 GiB of memory."""

import ctypes
import multiprocessing
import os
import queue
import sys
import unittest
import warnings

import cowshed

context = multiprocessing.get_context("fork")


def in_child(function, *arguments):
    """What a forked child gets from the function; an exception by its name, a signal by its number."""
    ours, theirs = cowshed.Pipe(duplex=False)

    def run():
        try:
            theirs.send(function(*arguments))
        except Exception as error:
            theirs.send(type(error).__name__)

    child = context.Process(target=run)
    child.start()
    child.join()
    return child.exitcode if child.exitcode else ours.recv()


class LargeMessages(unittest.TestCase):
    """Sending 2 GiB or more dies with struct.error, or deadlocks."""

    SIZE = 2 ** 31 + 1

    @staticmethod
    def receive(messages):
        with open("/proc/self/status") as file:
            before = file.read()
        data = messages.get().data
        with open("/proc/self/status") as file:
            after = file.read()
        grown = [int(text.split("RssAnon:")[1].split()[0]) for text in (before, after)]
        return len(data), data[0], data[-1], (grown[1] - grown[0]) >> 10

    def test_with_cowshed(self):
        messages = cowshed.Queue(memory=3 << 30)
        data = bytearray(self.SIZE)
        data[0], data[-1] = 1, 2
        messages.put(Blob(data))
        del data
        size, first, last, grown = in_child(self.receive, messages)
        self.assertEqual((size, first, last), (self.SIZE, 1, 2))
        self.assertLess(grown, 64)  # MiB: it reads the message where it is


class Blob:
    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        import pickle
        return Blob, (pickle.PickleBuffer(self.data),)


class WhatIsSent(unittest.TestCase):
    """What is pickled, how many objects and bytes?  Was my read-only data modified?"""

    def test_with_cowshed(self):
        jobs = cowshed.Queue(name="jobs")
        index = cowshed.publish(None, {i: str(i) for i in range(10_000)})
        with cowshed.transfers() as sent:
            for i in range(10):
                jobs.put(("look up", i))
            jobs.put(index)
        self.assertEqual([(row.type, row.objects) for row in sent.rows], [("tuple", 10), ("Ref", 1)])
        self.assertLess(sum(row.bytes for row in sent.rows), 1000)

    def test_what_is_written_shows(self):
        data = bytearray(4 << 20)
        data[::4096] = b"x" * (1 << 10)

        def write(pages):
            with cowshed.Meter() as meter:
                data[:pages * 4096:4096] = b"y" * pages
            return meter.bytes

        self.assertGreaterEqual(in_child(write, 512), 2 << 20)
        self.assertLess(in_child(write, 0), 1 << 20)


class SentButNotThere(unittest.TestCase):
    """queue.put() returned, and get_nowait() raises Empty; a sentinel for each worker."""

    def missed(self, make):
        missed = 0
        for _ in range(20):
            messages = make()
            messages.put(b"x" * 1_000_000)
            try:
                messages.get_nowait()
            except queue.Empty:
                missed += 1
                messages.get()
        return missed

    def test_as_it_was(self):
        self.assertGreater(self.missed(context.Queue), 0)

    def test_with_cowshed(self):
        self.assertEqual(self.missed(cowshed.Queue), 0)


class JoinHangs(unittest.TestCase):
    """process.join() hangs for ever: nobody has read what the process put."""

    def join(self, results, seconds):
        worker = context.Process(target=lambda: results.put(b"x" * 1_000_000))
        worker.start()
        worker.join(seconds)
        return worker

    def test_as_it_was(self):
        results = context.Queue()
        worker = self.join(results, 0.5)
        self.assertTrue(worker.is_alive())
        results.get()
        worker.join(60)

    def test_with_cowshed(self):
        results = cowshed.Queue()
        self.assertEqual(self.join(results, 60).exitcode, 0)
        self.assertEqual(len(results.get_nowait()), 1_000_000)


class ReadingCopies(unittest.TestCase):
    """After the fork each child's memory grows, although it only reads; nobody can check gc.freeze()."""

    @staticmethod
    def read(freeze):
        data = [{"id": i, "name": f"name {i}"} for i in range(100_000)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frozen = freeze()

        def read():
            with cowshed.Meter() as meter:
                sum(len(each["name"]) for each in data)
            return meter.bytes

        return in_child(read), frozen

    def test_with_cowshed(self):
        import gc
        before, _ = in_child(self.read, gc.freeze)
        after, frozen = in_child(self.read, cowshed.freeze)
        self.assertGreater(before, 10 << 20)
        if sys.version_info >= (3, 12):
            self.assertLess(after, before / 20)
        else:
            self.assertFalse(frozen.in_place)
            self.assertIn("no immortal objects", str(frozen))


class RawPointers(unittest.TestCase):
    """Sharing by id() works only for what lived before the fork, and breaks for temporaries."""

    def late(self, address_of, use):
        """A child gets, after its fork, the address of a new object."""
        ours, theirs = cowshed.Pipe(duplex=False)
        child = context.Process(target=lambda: os._exit(77 if use(ours.recv()) == "PublishedTooLate" else 0))
        child.start()
        kept = bytes(8_000_000)  # in memory of its own, which the child does not have
        theirs.send(address_of(kept))
        child.join(60)
        return child.exitcode

    def test_as_it_was(self):
        def use(address):
            return len(ctypes.cast(address, ctypes.py_object).value)

        self.assertLess(self.late(id, use), 0)

    def test_with_cowshed(self):
        def use(reference):
            try:
                return reference.get()
            except cowshed.Error as error:
                return type(error).__name__

        self.assertEqual(self.late(lambda obj: cowshed.publish(None, obj), use), 77)
        before = cowshed.publish("before", {"key": "value"})
        self.assertEqual(in_child(lambda: cowshed.find("before").get()), {"key": "value"})
        before.withdraw()
        self.assertEqual(use(before), "Released")


if __name__ == "__main__":
    unittest.main()
