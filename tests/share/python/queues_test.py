"""Tests cowshed's queues and pipes under each start method."""

import mmap
import multiprocessing
import multiprocessing.connection
import os
import pickle
import resource
import selectors
import signal
import struct
import threading
import time
import unittest

import cowshed
from children import in_child

METHODS = ("fork", "spawn", "forkserver")


class Blob:
    """Leaves its bytes out of the pickle, as a NumPy array does."""

    def __init__(self, data):
        self.data = data

    def __reduce_ex__(self, protocol):
        return Blob, (pickle.PickleBuffer(self.data),)


def answer(jobs, results):
    while True:
        try:
            job = jobs.get()
        except cowshed.Closed:
            return
        results.put((os.getpid(), job))


def hold_a_lock(jobs, segment):
    """Stops with the receivers' lock, as if in the midst of `get`."""
    jobs.qsize()  # takes part: index 1, generation 1
    with mmap.mmap(segment, 8192) as memory:
        struct.pack_into("II", memory, 4096 + 256, threading.get_native_id(), 1 << 16 | 2)
    os.kill(os.getpid(), signal.SIGSTOP)


def echo(end, *others):
    for other in others:  # what a forked process has inherited
        other.close()
    with end:
        while True:
            try:
                end.send(end.recv())
            except EOFError:
                return


def each_method(test):
    def run(self):
        for method in METHODS:
            with self.subTest(method):
                test(self, multiprocessing.get_context(method))
    return run


class QueueTest(unittest.TestCase):
    @each_method
    def test_workers_take_until_it_is_closed(self, context):
        jobs, results = cowshed.Queue(), cowshed.Queue(name="results")
        workers = [context.Process(target=answer, args=(jobs, results)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for i in range(100):
            jobs.put({"number": i})
        jobs.close()
        for worker in workers:
            worker.join(60)
            self.assertEqual(worker.exitcode, 0)
        got = [results.get(timeout=1)[1]["number"] for _ in range(100)]
        self.assertEqual(sorted(got), list(range(100)))
        with self.assertRaisesRegex(ValueError, "is closed"):
            jobs.put(1)

    def test_errors_name_the_parameters(self):
        with self.assertRaisesRegex(cowshed.TooLarge, "its memory is 1048576"):
            cowshed.Queue(memory=1 << 20).put(b"x" * (2 << 20))
        for wrong, said in ((lambda: cowshed.Queue((1 << 24) + 1), "maxsize must be at most 16777216, not 16777217"),
                            (lambda: cowshed.Queue(memory=0), "memory must be 1 byte to 1 TiB, not 0"),
                            (lambda: cowshed.SimpleQueue(memory=-1), "memory must be .*, not -1"),
                            (lambda: cowshed.Pipe(memory=(1 << 64) + 1), "memory must be .*"),
                            (lambda: cowshed.Queue(name=""), "name must have 1 to 63 bytes, not ''")):
            with self.assertRaisesRegex(ValueError, said):
                wrong()

    def test_a_stopped_process_is_waited_for(self):
        jobs = cowshed.Queue()
        jobs.put(1)
        segment = jobs._channel.descriptors()[0]
        worker = multiprocessing.get_context("fork").Process(target=hold_a_lock, args=(jobs, segment))
        worker.start()
        os.waitid(os.P_PID, worker.pid, os.WSTOPPED | os.WNOWAIT)
        for give_up in (jobs.get_nowait, lambda: jobs.get(timeout=0.01)):
            with self.assertRaises(cowshed.PeerStopped):
                give_up()
        threading.Timer(0.3, os.kill, (worker.pid, signal.SIGKILL)).start()
        self.assertEqual(jobs.get(), 1)
        worker.join()

    def test_buffers_are_views_of_one_message(self):
        jobs = cowshed.Queue()
        sent = [Blob(bytearray(b"%d" % i * n)) for i, n in ((1, 10), (2, 0), (3, 5_000_000))]
        jobs.put({"blobs": sent, "rest": "text"})
        got = jobs.get()
        self.assertEqual(got["rest"], "text")
        self.assertEqual([bytes(blob.data) for blob in got["blobs"]], [bytes(blob.data) for blob in sent])
        views = [blob.data for blob in got["blobs"]]
        self.assertTrue(all(type(view) is memoryview and not view.readonly for view in views))
        self.assertEqual(len({id(view.obj) for view in views}), 1)  # one message has them all
        views[2][:3] = b"abc"
        del got
        self.assertEqual(bytes(views[2][:4]), b"abc3")  # they keep the message's memory

    def test_what_was_taken_takes_no_memory_of_the_queue(self):
        jobs, held = cowshed.Queue(memory=1 << 20), []
        for i in range(5):
            jobs.put(Blob(bytes([i]) * 300_000), timeout=2)
            held.append(jobs.get().data)
        self.assertEqual([(view[0], view[-1]) for view in held], [(i, i) for i in range(5)])

    def test_what_was_taken_is_a_forked_child_s_own(self):
        jobs = cowshed.Queue()
        jobs.put(Blob(bytearray(b"mine" * 100_000)))
        data = jobs.get().data

        def write():
            data[:4] = b"hers"
            return bytes(data[:8])

        self.assertEqual(in_child(write), b"hersmine")
        self.assertEqual(bytes(data[:8]), b"minemine")

    def test_a_large_message_never_takes_its_size_twice(self):
        """More than 2 GiB if COWSHED_FULL is set: multiprocessing cannot send that."""
        size = 2 ** 31 + 1 if os.environ.get("COWSHED_FULL") else 1 << 27
        jobs = cowshed.Queue(memory=3 << 30)
        data = bytearray(size)
        data[0], data[-1] = 1, 2
        jobs.put(Blob(data))
        del data

        def peak_kib():
            with open("/proc/self/status") as file:
                return int(file.read().split("VmHWM:")[1].split()[0])

        def receive():
            before = peak_kib()
            data = jobs.get().data
            return len(data), data[0], data[-1], peak_kib() - before < 1.5 * (size >> 10)

        self.assertEqual(in_child(receive), (size, 1, 2, True))

    def test_what_cannot_be_pickled_leaves_the_queue_as_it_was(self):
        jobs = cowshed.Queue()
        with self.assertRaises(Exception):
            jobs.put(lambda: None)
        with self.assertRaises(Exception):
            jobs.put(threading.Lock())
        self.assertTrue(jobs.empty())

    def test_is_pickled_for_a_process_that_starts_alone(self):
        with self.assertRaisesRegex(RuntimeError, "inheritance"):
            pickle.dumps(cowshed.Queue())

    def test_a_signal_interrupts_the_wait(self):
        class Alarm(Exception):
            pass

        def ring(*_):
            raise Alarm

        before = signal.signal(signal.SIGALRM, ring)
        pipe = cowshed.Pipe()
        try:
            for wait in (cowshed.Queue().get, cowshed.SimpleQueue().get, pipe[0].recv,
                         lambda: cowshed.Queue(1).put(cowshed.Queue(1).get())):
                signal.setitimer(signal.ITIMER_REAL, 0.05)
                with self.assertRaises(Alarm):
                    wait()
        finally:
            signal.signal(signal.SIGALRM, before)

    def test_a_thread_waits_without_the_others(self):
        jobs, got = cowshed.Queue(), []
        thread = threading.Thread(target=lambda: got.append(jobs.get()))
        thread.start()
        jobs.put("late")
        thread.join(10)
        self.assertEqual(got, ["late"])

    def test_a_simple_queue(self):
        jobs = cowshed.SimpleQueue()
        self.assertTrue(jobs.empty())
        jobs.put([1, 2])
        self.assertFalse(jobs.empty())
        self.assertEqual(jobs.get(), [1, 2])
        jobs.close()
        with self.assertRaises(cowshed.Closed):
            jobs.get()


class PipeTest(unittest.TestCase):
    @each_method
    def test_both_ways(self, context):
        ours, theirs = cowshed.Pipe()
        others = (ours,) if context.get_start_method() == "fork" else ()
        worker = context.Process(target=echo, args=(theirs, *others))
        worker.start()
        theirs.close()
        for message in ("short", b"x" * 3_000_000, [1, {"a": None}]):
            ours.send(message)
            self.assertEqual(ours.recv(), message)
        ours.close()
        worker.join(60)
        self.assertEqual(worker.exitcode, 0)

    def test_more_than_a_kernels_pipe_holds(self):
        receive, send = cowshed.Pipe(duplex=False)
        send.send(b"x" * 10_000_000)  # nobody receives yet
        self.assertEqual(len(receive.recv()), 10_000_000)

    def test_an_end_that_everybody_has_closed(self):
        ours, theirs = cowshed.Pipe()
        theirs.send("last")
        theirs.close()
        self.assertTrue(ours.poll())
        self.assertEqual(ours.recv(), "last")
        self.assertTrue(ours.poll(1))  # its end can be "received"
        with self.assertRaises(EOFError):
            ours.recv()
        with self.assertRaises(BrokenPipeError):
            ours.send(1)
        with self.assertRaises(OSError):
            theirs.send(1)

    def test_a_killed_process_closes_its_ends(self):
        ours, theirs = cowshed.Pipe()
        worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        worker.start()
        theirs.close()
        self.assertFalse(ours.poll(0.01))
        worker.kill()
        with self.assertRaises(EOFError):
            ours.recv()
        worker.join()

    def test_bytes_longer_than_allowed(self):
        ours, theirs = cowshed.Pipe()
        theirs.send_bytes(b"long")
        with self.assertRaises(OSError):
            ours.recv_bytes(2)

    def test_poll_sleeps_on_an_empty_pipe(self):
        ours, theirs = cowshed.Pipe()
        for _ in range(2):
            theirs.send(1)
            self.assertTrue(ours.poll(1))
            ours.recv()
            before = time.thread_time()
            self.assertFalse(ours.poll(0.3))
            self.assertLess(time.thread_time() - before, 0.05)

    def test_what_another_process_took_makes_it_ready_once(self):
        reader, writer = cowshed.Pipe(False)
        with selectors.DefaultSelector() as selector:
            selector.register(reader, selectors.EVENT_READ)
            child = multiprocessing.get_context("fork").Process(target=reader.recv)
            child.start()
            writer.send(1)
            child.join()
            selector.select(0)
            self.assertFalse(reader.poll())
            self.assertEqual(selector.select(0), [])

    def test_what_fails_for_lack_of_descriptors_keeps_none(self):
        def descriptors():
            return len(os.listdir("/proc/self/fd"))

        cowshed.Pipe()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        kept = [os.open(os.devnull, os.O_RDONLY)]
        before = descriptors()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (kept[0] + 5, hard))
            self.assertRaises(OSError, cowshed.Pipe)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertEqual(descriptors(), before)
        os.close(kept[0])

    def test_the_bytes_of_an_object_have_its_buffers(self):
        reader, writer = cowshed.Pipe(False)
        writer.send(Blob(bytearray(b"buffer")))
        self.assertEqual(pickle.loads(reader.recv_bytes()).data, b"buffer")

    def test_is_ready_for_wait_and_selectors(self):
        pipes = [cowshed.Pipe(False) for _ in range(3)]
        ends = [reader for reader, _ in pipes]
        pipes[2][1].send("there")
        self.assertEqual(multiprocessing.connection.wait(ends), ends[2:])
        self.assertEqual(ends[2].recv(), "there")
        self.assertEqual(multiprocessing.connection.wait(ends, 0.01), [])
        pipes[1][1].close()
        self.assertEqual(multiprocessing.connection.wait(ends), ends[1:2])
        self.assertRaises(EOFError, ends[1].recv)

        def send():
            for i in range(1000):
                pipes[i % 2 * 2][1].send(i)

        sender, received = threading.Thread(target=send), []
        with selectors.DefaultSelector() as selector:
            for end in ends[::2]:
                selector.register(end, selectors.EVENT_READ)
            sender.start()
            while len(received) < 1000:
                received += [key.fileobj.recv() for key, _ in selector.select(10)]
            sender.join()
            self.assertEqual(selector.select(0.01), [])
        self.assertEqual(sorted(received), list(range(1000)))


if __name__ == "__main__":
    unittest.main()
