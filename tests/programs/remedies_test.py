#!/usr/bin/env python3
"""Remedies of TRY, followed: the program then copies less than half.
COWTOP=.../cowtop REMEDIES=.../remedies python3 remedies_test.py"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

COWTOP = os.environ["COWTOP"]
PYTHON = "/usr/bin/python3"  # as old as the distribution

# Each is run with its name alone, and with "follow" behind it.
C = {
    "allocator free list": "free nothing in the child that was allocated before the fork",
    "own writes": "move what is written, at CODE's lines, out of the data that is shared",
    "lock or flag word": "keep locks and flags on pages of their own, away from shared data",
    "bulk copy": "allocate in the child what it overwrites",
    "bulk fill": "allocate in the child what it overwrites",
    "system call": "allocate in the child the buffers that it reads into",
    "stack": "fork fewer processes, or keep them: each copies a few pages of its stack",
    "relocation": "load the libraries before the fork that children load by dlopen()",
    "program exit": "end children by _exit(), once their files are closed",
    "parent": "write less while a child lives: fork when few writes come",
    "programs": "start programs by posix_spawn() or vfork(), which copy nothing",
}

POOL_OF_PYTHON = """
import array, gc, os, sys
follows = len(sys.argv) > 1
PREPARE
for _ in range(3):
    if os.fork() == 0:
        WORK
        os._exit(0)
for _ in range(3):
    os.wait()
"""


def pool(prepare, work):
    return POOL_OF_PYTHON.replace("PREPARE", prepare).replace("WORK", work.replace("\n", "\n        "))


OLD = sys.version_info < (3, 12)
PYTHONS = {
    "reference count": (pool("data = array.array('d', range(400_000)) if follows else [float(i) for i in range(400_000)]",
                             "sum(data)"),
                        "hold the data in an array"),
    "garbage collector": (pool("data = [[i] for i in range(400_000)]\nif follows: gc.collect(); gc.freeze()", "gc.collect()"),
                          "call gc.collect() and gc.freeze() before the fork"),
    "pickling": ("""
import multiprocessing, sys
data = [{'id': i, 'name': str(i)} for i in range(200_000)]
def size(part): return len(part if part is not None else data)
if __name__ == '__main__':
    with multiprocessing.Pool(3) as workers:
        workers.map(size, [None if len(sys.argv) > 1 else data] * 3, 1)
""", "send references: load what is sent before the fork, or publish() it"),
}

OTHERS = {
    "Ruby": ("ruby", """
items = (1..150_000).map { |i| ["item #{i}", "of #{i}"] }
if ARGV[0] then Process.respond_to?(:warmup) ? Process.warmup : (3.times { GC.start }; GC.compact) end
3.times { fork { 40.times { |n| (1..5000).map { |i| "request #{i} of #{n}" } }; exit! } }
Process.waitall
""", "call Process.warmup (since Ruby 3.3), or GC.compact, before the fork"),
    "RubyAfterACollection": ("ruby", """
items = (1..150_000).map { |i| ["item #{i}", "of #{i}"] }
3.times { GC.start }
GC.compact if ARGV[0]
3.times { fork { 20.times { |n| (1..5000).map { |i| "request #{i} of #{n}" } }; exit! } }
Process.waitall
""", "call Process.warmup (since Ruby 3.3), or GC.compact, before the fork"),
    "RubyAtExit": ("ruby", """
items = (1..200_000).map { |i| Time.at(i) }
3.times { fork { ARGV[0] ? exit! : exit } }
Process.waitall
""", "end children by exit!, once their files are closed"),
    "PhpAtExit": ("php", """<?php
class Item { public $name; }
$data = [];
for ($i = 0; $i < 150000; $i++) { $o = new Item; $o->name = "value $i"; $data[] = $o; }
for ($w = 0; $w < 3; $w++) if (pcntl_fork() == 0) { if (isset($argv[1])) posix_kill(getmypid(), SIGKILL); exit(0); }
while (pcntl_wait($status) > 0);
""", "end children by _exit(), once their files are closed"),
    "PerlAtExit": ("perl", """
use POSIX;
my @data = map { bless {name => "value $_"}, 'Item' } 1..100000;
for (1..3) { next if fork; @ARGV ? POSIX::_exit(0) : exit 0 }
1 while wait > 0;
""", "end children by _exit(), once their files are closed"),
    "Php": ("php", """<?php ini_set('memory_limit', '-1');
$data = [];
for ($i = 0; $i < 200000; $i++) { $o = new stdClass; $o->name = "value $i"; $o->list = [$i]; $data[] = $o; }
for ($w = 0; $w < 3; $w++) if (pcntl_fork() == 0) {
  if (isset($argv[1])) gc_disable();
  foreach ($data as $o) strlen($o->name);
  posix_kill(getmypid(), SIGKILL);
}
while (pcntl_wait($status) > 0);
""", "call gc_disable() in children"),
    "Perl": ("perl", """
my @data = map { {n => "$_" . ("0" x 3)} } 1..150000;
if (@ARGV) { $_->{n} + 0 for @data }
for (1..3) { next if fork; for (my $i = 0; $i < @data; $i++) { my $n = $data[$i]{n} + 0 } kill 9, $$ }
1 while wait > 0;
""", "run that code, with that data, once before the fork"),
    "R": ("Rscript", """
library(parallel)
data <- lapply(1:400000, function(i) c(i, i + 1))
if (length(commandArgs(TRUE))) for (i in 1:2) invisible(gc())
invisible(mclapply(1:3, function(job) { for (k in 1:40) sum(runif(1e6)); 0 }, mc.cores = 3))
""", "call gc() twice before the fork, and not in children"),
}


# Of new memory: a cause of the report, what TRY says, and a program that follows it with an argument.
IMPORT = """
import os, sys, time
if len(sys.argv) > 1:
    import MODULE
for worker in range(4):
    if os.fork() == 0:
        import MODULE
        time.sleep(1)
        os._exit(0)
for worker in range(4):
    os.wait()
"""
NEW = {
    "import of provider": (IMPORT.replace("MODULE", "provider"), "import provider before the fork"),
    "import of partly": ("""
import os, sys, time
if len(sys.argv) > 1:
    import partly
for worker in range(4):
    if os.fork() == 0:
        if worker < 2:
            import partly
        else:
            kept = [bytes(4000) for number in range(10_000)]
        time.sleep(1)
        os._exit(0)
for worker in range(4):
    os.wait()
""", "import partly before the fork"),
    "received": ("""
import multiprocessing, sys, time
data = None
def work(sent):
    global data
    data = data or sent
    time.sleep(1)
    return len(data)
if __name__ == "__main__":
    big = ["item %d" % i for i in range(300_000)]
    if len(sys.argv) > 1:
        data = big
    with multiprocessing.Pool(3) as pool:
        print(pool.map(work, [None if data else big] * 3, 1))
""", "send references: load what is sent before the fork, or publish() it"),
    "loaded": ("""
import os, sys, time
def read():
    return open(sys.argv[0] + ".data", "rb").read()
data = read() if len(sys.argv) > 1 else None
for worker in range(4):
    if os.fork() == 0:
        data = data or read()
        time.sleep(1)
        os._exit(0)
for worker in range(4):
    os.wait()
""", "read before the fork, or map, what CODE's lines read"),
    "own data": ("""
import os, sys, time
cache = {}
def answer(number):
    if number not in cache:
        cache[number] = bytes(4000)
def fill():
    for number in range(8000):
        answer(number)
if len(sys.argv) > 1:
    fill()
for worker in range(4):
    if os.fork() == 0:
        fill()
        time.sleep(1)
        os._exit(0)
for worker in range(4):
    os.wait()
""", "build before the fork what each process builds alike"),
}


def measure(command):
    """The report of a run, and the bytes that all its processes copied."""
    with tempfile.TemporaryDirectory() as folder:
        recording = os.path.join(folder, "recording.cow")
        subprocess.run([COWTOP, "record", "--backend", "tracepoint", "-c", "8", "-o", recording, "--", *command],
                       stdout=subprocess.DEVNULL, check=True)
        report = subprocess.run([COWTOP, "report", recording], capture_output=True, text=True, check=True).stdout
        numbers = json.loads(subprocess.run([COWTOP, "report", "--json", recording], capture_output=True, text=True,
                                            check=True).stdout)
    copied = 0
    for process in numbers["processes"]:
        pages = process["copied_anon_pages"] + process["copied_file_pages"]
        copied += 4096 * (process["copied_pages_before_exec"] if process["execs"] and process["role"] != "root" else pages)
    return report, copied


class NewMemory(unittest.TestCase):
    def test_all(self):
        for cause, (program, remedy) in NEW.items():
            with self.subTest(cause), tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "program.py")
                with open(path, "w") as file:
                    file.write(program)
                with open(path + ".data", "wb") as file:
                    file.write(bytes(30 << 20))
                for module in ("provider", "partly"):
                    with open(os.path.join(folder, module + ".py"), "w") as file:
                        file.write("table = {i: ['item %d' % i] for i in range(200_000)}\n")
                plain, followed = (self.peak([PYTHON, "-B", path, *words]) for words in ([], ["follow"]))
                self.assertRegex(plain[0], rf"(?m)^  NEW +[\d.]+ MiB +\d+%  {cause}$")
                text = " ".join(plain[0].split())
                self.assertIn(remedy, text)
                said = int(re.search(re.escape(remedy) + r".*?saves at most (\d+)", text)[1])
                saved = (plain[1] - followed[1]) / 2**20
                self.assertGreater(saved, 0.8 * said - 4, plain[0])
                # "received": the parent no longer makes the pickles.
                if cause != "received" and "is not known" not in plain[0]:
                    self.assertLess(saved, 1.2 * said + 4, plain[0])

    def peak(self, command):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "run.cow")
            subprocess.run([COWTOP, "record", "--backend", "tracepoint", "-o", path, "--", *command],
                           stdout=subprocess.DEVNULL, check=True)
            report = subprocess.run([COWTOP, "report", path], capture_output=True, text=True, check=True).stdout
            numbers = json.loads(subprocess.run([COWTOP, "report", "--json", path], capture_output=True).stdout)
        return report, numbers["memory"]["peak_pss_bytes"]


@unittest.skipUnless(os.environ["SHARE_SUBJECT"], "a sanitizer keeps its own records of memory, and so cannot be settled")
class Settle(unittest.TestCase):
    def test_page_tables(self):
        plain, settled = (self.run_heap(kind) for kind in ("plain", "settled"))
        said = re.search(r"settle the heap before the fork \(cowshed::settle\(\)\): each fork copies ([\d.]+) MiB of "
                         r"page tables, in some (\d+) ms \(saves at most (\d+) MiB\)", plain[0])
        self.assertTrue(said, plain[0])
        self.assertNotIn("settle the heap", settled[0])
        saved = [(before - after) / 2**20 for before, after in zip(plain[1], settled[1], strict=True)]
        self.assertAlmostEqual(float(said[1]), plain[1][0] / 2**20, delta=0.1)
        self.assertAlmostEqual(sum(saved), int(said[3]), delta=0.1 * sum(saved) + 1)

    def run_heap(self, kind):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "run.cow")
            subprocess.run([COWTOP, "record", "--backend", "tracepoint", "-o", path, "--",
                            os.environ["SHARE_SUBJECT"], "heap", kind, "600000", "0", "3000"], check=True)
            report = subprocess.run([COWTOP, "report", path], capture_output=True, text=True, check=True).stdout
            numbers = json.loads(subprocess.run([COWTOP, "report", "--json", path], capture_output=True).stdout)
        return " ".join(report.split()), [process["page_tables_at_fork_bytes"] for process in numbers["processes"][1:]]


class Remedies(unittest.TestCase):
    def follow(self, command, remedy):
        report, before = measure(command)
        advice = " ".join(report.split("\n  TRY ")[-1].split())
        if not os.environ["SHARE_SUBJECT"] and remedy not in advice:
            self.skipTest("a sanitizer makes cowtop too slow to sample all")
        self.assertIn(remedy, advice, report)
        after_report, after = measure([*command, "follow"])
        self.assertLess(after, before / 2, report + after_report)

    def follow_script(self, program, text, remedy):
        with tempfile.NamedTemporaryFile("w", suffix=".script") as file:
            file.write(text)
            file.flush()
            self.follow([program, file.name], remedy)


def add(name, test):
    setattr(Remedies, "test_" + re.sub(r"\W", "_", name), test)


for each, advised in C.items():
    add("c_" + each, lambda self, each=each, advised=advised: self.follow([os.environ["REMEDIES"], each], advised))
for each, (source, advised) in PYTHONS.items():
    test = lambda self, source=source, advised=advised: self.follow_script(PYTHON, source, advised)
    add("python_" + each, test if OLD or each != "reference count" else
        unittest.skip("the remedy is cowshed.freeze(), which readings_test follows")(test))
for each, (interpreter, source, advised) in OTHERS.items():
    test = lambda self, program=interpreter, source=source, advised=advised: self.follow_script(program, source, advised)
    add(each, test if shutil.which(interpreter) else unittest.skip(f"no {interpreter}")(test))

libraries = sorted(glob.glob("/usr/lib/x86_64-linux-gnu/libLLVM*.so*"), key=os.path.getsize)
os.environ.setdefault("LIBRARY", libraries[-1] if libraries else "")
unittest.main(verbosity=2)
