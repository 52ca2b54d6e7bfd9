#!/usr/bin/env python3
"""Benchmarks say so when a rival answers wrongly or is not what it should be, and tell no time:
wrong_answer_test.py BUILD"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(sys.argv[1])
RIGHT = "return total & WORD"
WRONG = "return total + 1 & WORD"


class WrongAnswerTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cowshed-wrong-answer-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_here(self, *command, environment=None):
        return subprocess.run([self.folder / command[0], "--quick", *command[1:]], text=True,
                              capture_output=True, check=False,
                              env={**os.environ, **(environment or {})})

    def run_with(self, benchmark, group, python):
        shutil.copy(BUILD / "bench" / benchmark, self.folder)
        rival = self.folder / f"{benchmark}_python"
        rival.write_text(python, encoding="utf-8")
        rival.chmod(0o755)
        return self.run_here(benchmark, "--only", group)

    def expect_caught(self, benchmark, group, message):
        python = (BUILD / f"bench/{benchmark}_python").read_text(encoding="utf-8")
        self.assertEqual(python.count(RIGHT), 1)
        right = self.run_with(benchmark, group, python)
        self.assertEqual(right.returncode, 0, right.stderr)
        wrong = self.run_with(benchmark, group, python.replace(RIGHT, WRONG))
        self.assertEqual(wrong.returncode, 1, wrong.stdout)
        self.assertIn(message, wrong.stderr)
        self.assertEqual(wrong.stdout, "")

    def test_sharing(self):
        self.expect_caught("sharing", "1 MiB",
                           "Python, forked: worker 0 has answered wrongly in pass 0")

    def test_applications(self):
        self.expect_caught("applications", "data loader",
                           "data loader, Python: an epoch's checksum is wrong")

    def test_channel_rivals(self):
        shutil.copy(BUILD / "bench/channel_rivals", self.folder)
        rival = self.folder / "channel_rivals_python"
        python = (BUILD / "bench/channel_rivals_python").read_text(encoding="utf-8")
        sends = "self.out.put((stamp, self.body))"
        self.assertEqual(python.count(sends), 1)
        for instead, why in ((sends, ""), (f"{sends}, {sends}", "doubled"),
                             (sends.replace("body", "body[1:]"), "not what was sent"),
                             (sends.replace("self.body", "bytes(len(self.body))"), "other content")):
            rival.write_text(python.replace(sends, instead), encoding="utf-8")
            rival.chmod(0o755)
            run = self.run_here("channel_rivals", "--only", "rate/64 B")
            self.assertEqual(run.returncode, 1 if why else 0, run.stderr)
            self.assertIn(why, run.stderr)
            self.assertEqual("Python Queue, rate/64 B: " in run.stderr, why != "")
            self.assertEqual(run.stdout == "", why != "")

    def test_channel_rivals_in_cxx(self):
        """A mq_send() in front of libc's, that sends something else now and then."""
        shutil.copy(BUILD / "bench/channel_rivals", self.folder)
        shutil.copy(BUILD / "bench/channel_rivals_python", self.folder)
        for instead, why in (("sent(queue, text, size, priority); ", "doubled"),
                             ("((char*)text)[size - 1] ^= 1; ", "other content"),
                             ("size -= 8; ", "a message of 56 bytes, not 64")):
            (self.folder / "wrong.c").write_text(
                "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <mqueue.h>\n"
                "int mq_send(mqd_t queue, const char* text, size_t size, unsigned priority) {\n"
                "  static int count;\n"
                "  int (*sent)(mqd_t, const char*, size_t, unsigned) = dlsym(RTLD_NEXT, \"mq_send\");\n"
                f"  if (++count % 100 == 0) {{ {instead} }}\n"
                "  return sent(queue, text, size, priority);\n}\n", encoding="ascii")
            subprocess.run(["gcc", "-shared", "-fPIC", "-o", "wrong.so", "wrong.c"], check=True,
                           cwd=self.folder)
            run = self.run_here("channel_rivals", "--only", "rate/64 B",
                                environment={"LD_PRELOAD": str(self.folder / "wrong.so")})
            self.assertEqual(run.returncode, 1, run.stdout)
            self.assertRegex(run.stderr, f"POSIX mq, rate/64 B: .*{why}")
            self.assertEqual(run.stdout, "")

    def test_allocators(self):
        for name in ("allocators", "fill", "fill_scope", "fill_jemalloc"):
            shutil.copy(BUILD / "bench" / name, self.folder)
        shutil.copy(BUILD / "bench/fill", self.folder / "fill_mimalloc")  # with glibc's malloc
        wrong = self.run_here("allocators", "--only", "churn/small")
        self.assertEqual(wrong.returncode, 1, wrong.stdout)
        self.assertRegex(wrong.stderr, "mimalloc: malloc is provided by .*libc")
        self.assertEqual(wrong.stdout, "")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
