#!/usr/bin/env python3
"""That cowtop cure names the remedy that is known to help, and no other:
COWTOP=.../cowtop PYTHONPATH=FOLDER PYTHONS=PYTHON:... python3 tests/tools/cure/cure_test.py"""

import json
import os
import pathlib
import pty
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

WORKERS = """
import gc, os, sys, time
data = %s
for i in range(3):
    if os.fork() == 0:
        os.write(1, f"PID {os.getpid()}: {%s}\\n".encode())  # at once, among others' lines
        time.sleep(0.5)
        os._exit(0)
for i in range(3):
    os.wait()
"""
STRINGS = "[str(i) for i in range(600_000)]"
READ = "sum(len(each) for each in data)"
LISTS = ("[[] for i in range(900_000)]", "gc.collect()")

RUBY = """
data = (1..250_000).map { |i| ["a#{i}", "b#{i}"] }
3.times.map { |w| fork { 30.times { (1..2000).map { |i| "#{i}" }; sleep 0.02 }; puts w; exit!(0) } }
       .each { |pid| Process.wait(pid) }
"""

# Each thread's arena of malloc keeps 20 MiB below the block that it used last.
THREADS = """
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static pthread_barrier_t all;
static void* work(void* unused) {
  enum { kBlocks = 20000 };
  char** blocks = malloc(kBlocks * sizeof *blocks);
  for (int i = 0; i < kBlocks; ++i) memset(blocks[i] = malloc(1000), 1, 1000);
  char* volatile last = malloc(1000); // not optimised away
  memset(last, 1, 1000);
  for (int i = 0; i < kBlocks; ++i) free(blocks[i]);
  pthread_barrier_wait(&all);
  usleep(800000);
  free(last);
  free(blocks);
  return unused;
}
int main(void) {
  pthread_t threads[16];
  pthread_barrier_init(&all, NULL, 16);
  for (int i = 0; i < 16; ++i) {
    pthread_create(&threads[i], NULL, work, NULL);
    usleep(50000);
  }
  for (int i = 0; i < 16; ++i) pthread_join(threads[i], NULL);
  puts("done");
}
"""

# Each child copies 64 MiB only when it ends.
ENDS = """
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
enum { kBytes = 64 << 20 };
static char* data;
static void write_all(void) {
  for (int i = 0; i < kBytes; i += 4096) ++data[i];
  sleep(1);
}
int main(void) {
  data = malloc(kBytes);
  memset(data, 1, kBytes);
  for (int i = 0; i < 3; ++i) {
    if (fork() > 0) continue;
    sleep(1);
    atexit(write_all);
    exit(0);
  }
  while (wait(NULL) > 0) continue;
}
"""

# Forks with 1 GiB of small blocks.
FORKS = """
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
  for (int i = 0; i < 1 << 20; ++i) memset(malloc(1000), 1, 1000);
  for (int i = 0; i < 10; ++i) {
    if (fork() == 0) _exit(0);
    wait(NULL);
  }
}
"""

# Each child writes to one byte of each 2 MiB.
SPARSE = """
import mmap, os, time
for worker in range(4):
    if os.fork() == 0:
        data = mmap.mmap(-1, 66 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        data.madvise(mmap.MADV_HUGEPAGE)
        for at in range(worker << 12, 64 << 20, 2 << 20): data[at] = 1
        time.sleep(3)
        os._exit(0)
while True:
    try: os.wait()
    except ChildProcessError: break
"""


def minor_of(python):
    version = subprocess.run([python, "-c", "import sys; print(sys.version_info[1])"], stdout=subprocess.PIPE, text=True)
    return int(version.stdout)


PYTHONS = {minor_of(each): each for each in os.environ["PYTHONS"].split(":")}


class CureTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def cure(self, *command):
        done = subprocess.run([os.environ["COWTOP"], "cure", "--json", "--", *command], capture_output=True, text=True,
                              cwd=self.folder, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        return report["best"], {each["remedy"]: each for each in report["remedies"]}, done.stdout

    def compiled(self, name, source, *options):
        """The command that runs a program in C."""
        (self.folder / f"{name}.c").write_text(source)
        subprocess.run(["cc", "-O1", *options, f"{name}.c", "-o", name], cwd=self.folder, check=True)
        return f"./{name}"

    def workers(self, python, data, work):
        script = self.folder / "workers.py"
        script.write_text(WORKERS % (data, work))
        return self.cure(python, str(script))

    def immortal(self):
        newest = max(PYTHONS)
        if newest < 12:
            self.skipTest("the package was built for no Python from 3.12")
        return PYTHONS[newest]

    def test_the_line_to_keep_works_in_a_shell(self):
        python = self.immortal()
        _, remedies, text = self.workers(python, STRINGS, READ)
        line = remedies["cowshed run"]["keep"]
        self.assertRegex(line, f"^{re.escape(python)} -m cowshed run --above [0-9]+MiB -- {re.escape(python)} ", text)
        done = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("cowshed: PID", done.stderr)
        self.assertIn("froze", done.stderr)

    def test_reads_of_python_need_cowshed_run_though_they_print_their_own_memory(self):
        own = ", sum(int(line.split()[1]) for line in open('/proc/self/smaps_rollup') if 'Private_D' in line) >> 14"
        best, remedies, text = self.workers(self.immortal(), STRINGS, READ + own)
        self.assertEqual(best, "cowshed run", text)
        self.assertEqual(remedies["cowshed run"]["output"], "numbers", text)
        difference = remedies["cowshed run"]["difference"]
        self.assertRegex(difference["as_it_is"], r"^PID \d+: \(3488890, 1\)$")
        self.assertRegex(difference["cured"], r"^PID \d+: \(3488890, 0\)$")

    def test_a_peak_of_the_end_has_that_of_the_work_beside_it(self):
        report = json.loads(self.cure(self.compiled("ends", ENDS))[2])["as_it_is"]
        self.assertLess(report["in_service_bytes"]["most"] / 2**20, 80, "of 65 MiB, which a busy machine reads early")
        self.assertGreater(report["peak_pss_bytes"]["most"] / 2**20, 200, "of 257 MiB")

    def test_collections_of_an_older_python_need_gc_freeze(self):
        older = min(PYTHONS)
        if older >= 12:
            self.skipTest("the package was built for no Python before 3.12")
        best, remedies, text = self.workers(PYTHONS[older], *LISTS)
        self.assertEqual(best, "gc.freeze()", text)
        self.assertEqual(next(iter(remedies)), "gc.freeze()")

    def test_objects_of_ruby_need_a_warm_up(self):
        if not shutil.which("ruby"):
            self.skipTest("ruby is not installed")
        (self.folder / "workers.rb").write_text(RUBY)
        best, _, text = self.cure("ruby", "workers.rb")
        self.assertEqual(best, "warm up Ruby", text)

    def test_threads_with_an_arena_each_need_fewer(self):
        best, _, text = self.cure(self.compiled("threads", THREADS, "-pthread"))
        self.assertEqual(best, "MALLOC_ARENA_MAX=2", text)

    def test_large_heaps_fork_quickly_in_huge_pages(self):
        best, remedies, text = self.cure(self.compiled("forks", FORKS))
        self.assertEqual(best, "huge pages", text)
        self.assertLess(remedies[best]["longest_fork_ms"]["most"],
                        json.loads(text)["as_it_is"]["longest_fork_ms"]["least"] / 3, text)

    def test_sparse_memory_needs_no_huge_pages(self):
        (self.folder / "sparse.py").write_text(SPARSE)
        best, remedies, text = self.cure(self.immortal(), "sparse.py")
        self.assertEqual(best, "no huge pages", text)
        self.assertNotIn("remark", remedies[best])

    def test_own_writes_need_an_edit(self):
        best, remedies, text = self.workers(PYTHONS[max(PYTHONS)], "bytearray(50 << 20)",
                                            "[data.__setitem__(i, 1) for i in range(0, len(data), 4096)] and 1")
        self.assertIsNone(best, text)
        self.assertEqual(remedies, {}, text)

    def test_a_changed_output_is_never_recommended(self):
        best, remedies, text = self.workers(self.immortal(), STRINGS, READ + ", gc.get_freeze_count() > 0")
        self.assertIsNone(best, text)
        self.assertEqual(remedies["cowshed run"]["output"], "differs", text)

    def test_a_command_that_fails_is_not_cured(self):
        done = subprocess.run([os.environ["COWTOP"], "cure", "--", "sh", "-c", "echo no such data >&2; exit 7"],
                              capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (7, ""))
        self.assertIn("no such data\n", done.stderr)

    def test_ctrl_c_shows_what_is_known(self):
        script = self.folder / "workers.py"
        runs = self.folder / "runs"
        script.write_text("print(end='x', file=open('runs', 'a'))" + WORKERS % (STRINGS, READ))
        process = subprocess.Popen([os.environ["COWTOP"], "cure", "--runs", "1000", "--keep-going", "--",
                                    self.immortal(), str(script)],
                                   stdout=subprocess.PIPE, text=True, cwd=self.folder, start_new_session=True)
        for _ in range(600):  # two runs have begun after the first
            if runs.is_file() and len(runs.read_text()) > 2:
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)
        self.assertTrue(re.search(r"^  as it is  .* exit 0$", output, re.MULTILINE), output)

    def test_ctrl_c_between_two_runs_shows_what_is_known_and_starts_no_other(self):
        (self.folder / "cowshed.py").write_text("import time; open('asked', 'w'); time.sleep(3)")
        script = self.folder / "workers.py"
        script.write_text(WORKERS % LISTS)
        process = subprocess.Popen([os.environ["COWTOP"], "cure", "--", PYTHONS[max(PYTHONS)], str(script)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder,
                                   start_new_session=True, env={**os.environ, "PYTHONPATH": str(self.folder)})
        while not (self.folder / "asked").exists():  # by python -m cowshed --version
            self.assertIsNone(process.poll())
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        output, error = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, error)
        self.assertRegex(output, r"(?m)^  as it is  .* exit 0$")
        self.assertIn(" was not tried: the trial ended before", output)
        self.assertNotIn("run 2", error)

    def test_a_signal_while_the_probes_load_starts_no_command(self):
        ways = {130: lambda pid, terminal: os.write(terminal, b"\x03"), 143: lambda pid, _: os.kill(pid, signal.SIGTERM)}
        for status, ask in ways.items():
            pid, terminal = pty.fork()
            if pid == 0:
                os.execv(os.environ["COWTOP"], ["cowtop", "cure", "--", "sleep", "30"])
            output = b""
            begin = time.monotonic()
            try:
                while True:
                    was_begun = b"run 1," in output
                    output += os.read(terminal, 4096)
                    if b"run 1," in output and not was_begun:
                        ask(pid, terminal)
            except OSError:  # its end
                os.close(terminal)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), status, output)
            self.assertLess(time.monotonic() - begin, 25, output)


if __name__ == "__main__":
    unittest.main(verbosity=2)
