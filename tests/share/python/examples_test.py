"""Runs docs/examples/python with and without the freeze, and compares the copies of a worker, by cowtop.

COWTOP names cowtop.  Needs gunicorn, gevent, celery, joblib, PyTorch and uWSGI for this Python, if no test is named."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import urllib.request

EXAMPLES = pathlib.Path(__file__).resolve().parents[3] / "docs/examples/python"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def pids_of_tree(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [pid, *(each for child in file.read().split() for each in pids_of_tree(child))]
    except OSError:  # it has ended
        return []


def memory_of_tree(pid):
    """The PSS of a process and its descendants, in MiB."""
    while True:
        size, pids = 0, pids_of_tree(pid)
        for each in pids:
            with contextlib.suppress(OSError), open(f"/proc/{each}/smaps_rollup") as file:
                size += sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024
        # A fork between two readings would have shared memory counted twice.
        if pids_of_tree(pid) == pids:
            return size


class ExamplesTest(unittest.TestCase):
    def run_example(self, way, command, visit=None):
        """Returns what the worker copied that copied most, in MiB, and the output."""
        plain = way != "edited"
        if way == "run":
            command = [sys.executable, "-m", "cowshed", "run", "--above", "16MiB", "--", *command]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if plain:
            environment["PLAIN"] = "1"
        with tempfile.TemporaryDirectory() as folder:
            environment["BROKER"] = folder
            report = os.path.join(folder, "report.json")
            process = subprocess.Popen([os.environ["COWTOP"], "--json", "--no-sites", "-o", report, "--", *command],
                                       cwd=EXAMPLES, env=environment, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True)
            output = (visit(process, environment) or "") if visit else ""
            output += process.communicate(timeout=120)[0]
            processes = json.loads(pathlib.Path(report).read_text())["processes"]
        copied = max(each["copied_pages"] for each in processes if each["role"] == "child") / 256
        return copied, output

    def compare(self, command, visit=None, words=()):
        """Also the plain program by cowshed run, which edits nothing."""
        (before, was), (after, now), (ran, said) = (
            self.run_example(way, [*command, *(words if way != "edited" else ())], visit)
            for way in ("plain", "edited", "run"))
        print(f"{command[-1]}: a worker copied {before:.1f} MiB, frozen {after:.1f}, by cowshed run {ran:.1f}")
        self.assertGreater(before, 30, was)
        self.assertLess(after, before / 8, now)
        self.assertLess(ran, before / 8, said)

    def script(self, name):
        self.compare([sys.executable, name], words=["plain"])

    def test_fork(self):
        self.script("fork.py")

    def test_forkserver(self):
        self.script("forkserver.py")

    def test_futures(self):
        self.script("futures.py")

    def test_survives(self):
        done = subprocess.run([sys.executable, "survives.py"], cwd=EXAMPLES, capture_output=True, text=True,
                              timeout=120)
        self.assertEqual(len(done.stdout.split()), 8, done.stderr)
        self.assertEqual(len(set(done.stdout.split())), 1)
        self.assertIn("terminated abruptly", done.stderr)

    def test_versions(self):
        with tempfile.NamedTemporaryFile("w") as file:
            process = subprocess.Popen([sys.executable, "versions.py", file.name], cwd=EXAMPLES, stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
            self.addCleanup(process.stdout.close)
            process.stdout.readline()
            sizes, peaks = [], [0]  # after each renewal, and at most during it

            def watch():
                while process.poll() is None:
                    peaks[-1] = max(peaks[-1], memory_of_tree(process.pid))

            watcher = threading.Thread(target=watch)
            watcher.start()
            for length in (0, 501, 502, 503, 504, 505, 506):
                file.truncate(0)
                file.seek(0)
                file.writelines(f"name{i} {'x' * length}\n" for i in range(100_000 if length else 0))
                file.flush()
                peaks.append(0)
                process.stdin.write("\n")
                process.stdin.flush()
                answers = set(process.stdout.readline().split())
                self.assertEqual(answers, {str(100_000 * (length + 1) if length else 0)})
                sizes.append(memory_of_tree(process.pid))
            process.stdin.close()
            watcher.join(120)
        one, most = sizes[1] - sizes[0], max(peaks) - peaks[1]
        print(f"versions.py: one of six versions takes {one:.1f} MiB, all at most {most:.1f} MiB")
        self.assertEqual(process.returncode, 0)
        self.assertGreater(one, 50)
        self.assertLess(most, 2.2 * one)

    def test_dataloader(self):
        self.script("dataloader.py")

    def test_joblib(self):
        self.script("joblib_pool.py")

    def test_joblib_with_loky_shares_nothing(self):
        """Its workers are new programs."""
        program = textwrap.dedent("""
            import sys, time
            import catalogue, joblib
            def work(number):
                time.sleep(0.3)  # so that each worker gets one
                return catalogue.total(number)
            with joblib.parallel_config(sys.argv[1], n_jobs=4), joblib.Parallel() as parallel:
                print(*set(parallel(joblib.delayed(work)(number) for number in range(16))), flush=True)
                sys.stdin.read()
            """)
        sizes, answers = {}, set()
        for backend in ("multiprocessing", "loky"):
            for run in ([], ["-m", "cowshed", "run", "--", sys.executable]):
                process = subprocess.Popen([sys.executable, *run, "-c", program, backend], cwd=EXAMPLES, text=True,
                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                answers.add(process.stdout.readline())
                sizes[backend, bool(run)] = memory_of_tree(process.pid)
                process.communicate(timeout=60)
                self.assertEqual(process.returncode, 0)
        print("joblib, 4 workers, MiB: {:.0f}, by cowshed run {:.0f}; loky {:.0f}, {:.0f}".format(*sizes.values()))
        self.assertEqual(len(answers), 1)
        self.assertLess(sizes["multiprocessing", True], sizes["multiprocessing", False] / 2)
        self.assertGreater(sizes["loky", True], sizes["loky", False] * 0.9)

    def test_celery(self):
        def visit(process, environment):
            send = "import celery_app; [celery_app.total.delay() for _ in range(8)]"
            subprocess.run([sys.executable, "-c", send], cwd=EXAMPLES, env=environment, check=True)
            done = 0
            for line in process.stdout:
                done += "succeeded" in line
                if done == 8:
                    break
            os.kill(int(subprocess.run(["pgrep", "-o", "-P", str(process.pid)], capture_output=True).stdout),
                    signal.SIGTERM)

        self.compare([sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--pool", "prefork",
                      "--concurrency", "2", "--loglevel", "info"], visit)

    def visit_pages(self, port, end):
        def visit(process, _):
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).read()
                    break
                except OSError:
                    time.sleep(0.1)
            for _ in range(30):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).read()
            os.kill(int(subprocess.run(["pgrep", "-o", "-P", str(process.pid)], capture_output=True).stdout), end)

        return visit

    def gunicorn(self, worker_class):
        port = free_port()
        self.compare([sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "-k", worker_class, "-b",
                      f"127.0.0.1:{port}", "wsgi_app:application"], self.visit_pages(port, signal.SIGTERM))

    def test_gunicorn(self):
        self.gunicorn("sync")

    def test_gunicorn_with_threads(self):
        self.gunicorn("gthread")

    def test_gunicorn_with_gevent(self):
        self.gunicorn("gevent")

    def test_uwsgi(self):
        port = free_port()
        self.compare(["uwsgi", "--plugin", "python3", "--master", "--processes", "2", "--skip-atexit",
                      "--http-socket", f"127.0.0.1:{port}", "--wsgi-file", "uwsgi_app.py"],
                     self.visit_pages(port, signal.SIGINT))


if __name__ == "__main__":
    unittest.main()
