"""Tests references to published objects, meters, and counts of transfers."""

import gc
import multiprocessing
import pickle
import sys
import unittest
import warnings

import cowshed
from children import in_child


def use(reference):
    try:
        return reference.get()
    except cowshed.Error as error:
        return type(error).__name__


def put_use(results, reference):
    results.put(use(reference))


class ReferenceTest(unittest.TestCase):
    def publish(self, obj, name=None):
        reference = cowshed.publish(name, obj)
        self.addCleanup(lambda: use(reference) == "Released" or reference.withdraw())
        return reference

    def test_is_the_object_itself(self):
        index = {"a": 1}
        reference = self.publish(index, "index")
        self.assertIs(reference.get(), index)
        self.assertIs(cowshed.find("index").get(), index)
        self.assertEqual(cowshed.find("index"), reference)
        self.assertEqual(in_child(lambda: (cowshed.find("index").get(), reference.get())), (index, index))
        with self.assertRaisesRegex(ValueError, "'index' is published already"):
            cowshed.publish("index", [])
        with self.assertRaises(cowshed.NotPublished):
            cowshed.find("nothing")

    def test_is_small_when_it_is_sent(self):
        reference = self.publish(["x" * 1000] * 1000)
        data = pickle.dumps(reference)
        self.assertLess(len(data), 100)
        self.assertIs(pickle.loads(data).get(), reference.get())
        self.assertEqual(pickle.loads(data), reference)
        self.assertEqual(len({reference, pickle.loads(data)}), 1)

    def test_withdrawn(self):
        reference = self.publish([1], "short")
        self.assertEqual(in_child(lambda: (reference.withdraw(), use(reference))[1]), "Released")
        self.assertEqual(reference.get(), [1])  # here it is still published
        reference.withdraw()
        self.assertEqual(use(reference), "Released")
        with self.assertRaises(cowshed.Released):
            reference.withdraw()
        self.publish([2], "short")
        self.assertEqual(use(reference), "Released")

    def test_of_another_tree(self):
        reference = self.publish([1])
        for method in ("spawn", "forkserver"):
            results = cowshed.Queue()
            context = multiprocessing.get_context(method)
            worker = context.Process(target=put_use, args=(results, reference))
            worker.start()
            self.assertEqual(results.get(timeout=60), "WrongProcessTree")
            worker.join()

    def test_published_after_the_fork(self):
        results, references = cowshed.Queue(), cowshed.Queue()
        context = multiprocessing.get_context("fork")
        worker = context.Process(target=lambda: put_use(results, references.get()))
        worker.start()
        references.put(self.publish([1]))
        self.assertEqual(results.get(timeout=60), "PublishedTooLate")
        worker.join()

    def test_keeps_the_object_alive(self):
        class Thing:
            ended = []

            def __del__(self):
                self.ended.append(1)

        reference = cowshed.publish(None, Thing())
        self.assertEqual(Thing.ended, [])
        reference.withdraw()
        self.assertEqual(Thing.ended, [1])

    def test_bytes_that_are_no_reference(self):
        with self.assertRaises(TypeError):
            cowshed.Ref()
        broken = pickle.loads(pickle.dumps(self.publish([1])))
        broken._bits = b"\0" * 16
        self.assertEqual(use(broken), "Error")
        broken._bits = b"short"
        with self.assertRaises(ValueError):
            broken.get()


class MeterTest(unittest.TestCase):
    def test_counts_the_pages_that_a_child_writes(self):
        pages = 64
        data = bytearray(pages * 4096 * 2)
        data[::4096] = b"x" * (2 * pages)

        def write():
            with cowshed.Meter() as meter:
                data[:pages * 4096:4096] = b"y" * pages
            return meter.bytes, meter.at_least, meter.at_most, str(meter)

        size, at_least, at_most, text = in_child(write)
        self.assertTrue(pages * 4096 <= size <= pages * 4096 + 2**20, size)
        self.assertTrue(at_least <= size <= at_most)
        self.assertIn("copied by PID", text)
        with self.assertRaises(ProcessLookupError):
            cowshed.Meter(2**22 - 1).__enter__()

    def test_what_is_copied_of_the_frozen_memory(self):
        with self.assertRaisesRegex(RuntimeError, "forked after"):
            cowshed.copied()

        def freeze_and_fork():
            data = bytearray(8 << 20)
            data[::4096] = b"x" * (2 << 10)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cowshed.freeze()

            def write():
                before = cowshed.copied()
                data[:4 << 20:4096] = b"y" * (1 << 10)
                return cowshed.copied() - before

            return in_child(write)

        self.assertTrue(4 << 20 <= in_child(freeze_and_fork) <= 5 << 20)

    def test_reading_what_is_frozen_copies_nothing(self):
        def read(freeze):
            data = [{"id": i, "name": f"name {i}"} for i in range(100_000)]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                frozen = freeze()

            def read():
                with cowshed.Meter() as meter:
                    sum(len(each["name"]) for each in data)
                return meter.bytes

            return in_child(read), str(frozen)

        before, _ = in_child(lambda: read(gc.freeze))
        after, frozen = in_child(lambda: read(cowshed.freeze))
        self.assertGreater(before, 10 << 20)
        if sys.version_info >= (3, 12):
            self.assertLess(after, before / 20)
        else:
            self.assertIn("no immortal objects", frozen)


class TransferTest(unittest.TestCase):
    def test_objects_by_queue_and_type(self):
        jobs = cowshed.Queue(name="jobs of transfers")
        jobs.put("before")
        with cowshed.transfers() as sent:
            jobs.put({"a": 1})
            jobs.put({"b": 2})
            jobs.put(b"x" * 100_000)
        self.assertEqual([(row.type, row.objects) for row in sent.rows], [("bytes", 1), ("dict", 2)])
        self.assertTrue(100_000 < sent.rows[0].bytes < 100_100)
        self.assertIn("2 x dict  through 'jobs of transfers'", str(sent))


if __name__ == "__main__":
    unittest.main()
