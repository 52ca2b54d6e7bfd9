#!/usr/bin/env python3
"""Each remedy of `cowtop help --json`, followed: the program then copies less than half, or has less new memory.
COWTOP=.../cowtop REMEDIES=.../remedies SHARE_SUBJECT=.../share_subject PYTHONPATH=FOLDER python3 remedies_test.py"""

import contextlib
import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    import cowshed
except ImportError:
    cowshed = None

COWTOP = os.environ["COWTOP"]
PYTHON = "/usr/bin/python3"  # as old as the distribution
REMEDIES = json.loads(subprocess.run([COWTOP, "help", "--json"], capture_output=True, check=True).stdout)["remedies"]
TEXTS = {}  # by the first language, if there is any, and the cause; of a second remedy, by the name of its cure
for each in REMEDIES:
    if each["text"] and not each["no_proof"]:
        name = " ".join([*each["languages"][:1], each["cause"]])
        TEXTS[(each["cure"] or each["text"].split()[1]) if name in TEXTS else name] = each["text"]
C = subprocess.run([os.environ["REMEDIES"]], capture_output=True, text=True, check=True).stdout.splitlines()
NEW_PYTHON = "Python 3.12 and newer"

# Programs that follow a remedy if they have an argument.
POOL = """
import array, gc, os, sys, time
follows = len(sys.argv) > 1
PREPARE
for worker in range(4):
    if os.fork() == 0:
        WORK
        os._exit(0)
for worker in range(4):
    if os.wait()[1]: os.abort()
"""


def pool(prepare, work):
    return POOL.replace("PREPARE", prepare).replace("WORK", work.replace("\n", "\n        "))


SCRIPTS = [
    ("older Python reference count", PYTHON, pool(
        "data = array.array('d', range(400_000)) if follows else [float(i) for i in range(400_000)]", "sum(data)")),
    (f"{NEW_PYTHON} garbage collector", PYTHON, pool(
        "data = [[i] for i in range(400_000)]\nif follows: gc.collect(); gc.freeze()", "gc.collect()")),
    ("older Python cached hash", PYTHON, pool(
        "data = array.array('d', range(400_000)) if follows else tuple(str(i) for i in range(400_000))",
        "sum(data) if follows else hash(data)")),
    (f"{NEW_PYTHON} program exit", PYTHON, pool("data = [[i] for i in range(400_000)]", "if not follows: sys.exit()")),
    ("adaptive interpreter", PYTHON, pool("""
exec("def long(x):\\n" + " x = x + 1\\n" * 4000)
functions = [type(long)(long.__code__.replace(co_firstlineno=i), {}) for i in range(200)]
def run():
    for each in functions:
        for _ in range(20): each(1)
if follows: run()""", "run()")),
    ("pickling", PYTHON, """
import multiprocessing, sys
data = [[{'id': i, 'name': str(i)} for i in range(1000)] for part in range(200)]
if __name__ == '__main__':
    with multiprocessing.Pool(3) as workers:
        workers.map(len, [()] * 200 if len(sys.argv) > 1 else data, 1)
"""),
    ("reference count", "perl", """
my @data;
if (@ARGV) { open my $file, '>', $0; for my $i (1..200_000) { print $file "value $i\n" } }
else { @data = map { "value $_" } 1..200_000 }
for (1..3) {
  next if fork;
  my $sum = 0;
  if (@ARGV) { open my $file, '<:mmap', $0; while (<$file>) { $sum += length } }
  else { for my $each (@data) { $sum += length $each } }
  kill 9, $$
}
1 while wait > 0;
"""),
    ("Ruby garbage collector", "ruby", """
items = (1..150_000).map { |i| ["item #{i}", "of #{i}"] }
if ARGV[0] then Process.respond_to?(:warmup) ? Process.warmup : (3.times { GC.start }; GC.compact) end
3.times { fork { 40.times { |n| (1..5000).map { |i| "request #{i} of #{n}" } }; exit! } }
Process.waitall
"""),
    ("Ruby allocator free list", "ruby", """
items = (1..150_000).map { |i| ["item #{i}", "of #{i}"] }
3.times { GC.start }
GC.compact if ARGV[0]
3.times { fork { 20.times { |n| (1..5000).map { |i| "request #{i} of #{n}" } }; exit! } }
Process.waitall
"""),
    ("Ruby program exit", "ruby", """
items = (1..200_000).map { |i| Time.at(i) }
3.times { fork { ARGV[0] ? exit! : exit } }
Process.waitall
"""),
    ("program exit", "php", """<?php
class Item { public $name; }
$data = [];
for ($i = 0; $i < 150000; $i++) { $o = new Item; $o->name = "value $i"; $data[] = $o; }
for ($w = 0; $w < 3; $w++) if (pcntl_fork() == 0) { if (isset($argv[1])) posix_kill(getmypid(), SIGKILL); exit(0); }
while (pcntl_wait($status) > 0);
"""),
    ("program exit", "perl", """
use POSIX;
my @data = map { bless {name => "value $_"}, 'Item' } 1..100000;
for (1..3) { next if fork; @ARGV ? POSIX::_exit(0) : exit 0 }
1 while wait > 0;
"""),
    ("PHP garbage collector", "php", """<?php ini_set('memory_limit', '-1');
$data = [];
for ($i = 0; $i < 200000; $i++) { $o = new stdClass; $o->name = "value $i"; $o->list = [$i]; $data[] = $o; }
for ($w = 0; $w < 3; $w++) if (pcntl_fork() == 0) {
  if (isset($argv[1])) gc_disable();
  foreach ($data as $o) strlen($o->name);
  posix_kill(getmypid(), SIGKILL);
}
while (pcntl_wait($status) > 0);
"""),
    ("object flags", "perl", """
my @data = map { {n => "$_" . ("0" x 3)} } 1..150000;
if (@ARGV) { $_->{n} + 0 for @data }
for (1..3) { next if fork; for (my $i = 0; $i < @data; $i++) { my $n = $data[$i]{n} + 0 } kill 9, $$ }
1 while wait > 0;
"""),
    ("R garbage collector", "Rscript", """
library(parallel)
data <- lapply(1:400000, function(i) c(i, i + 1))
if (length(commandArgs(TRUE))) for (i in 1:2) invisible(gc())
invisible(mclapply(1:3, function(job) { for (k in 1:400) sum(runif(1e5)); 0 }, mc.cores = 3))
"""),
]


# Each takes a second, so that all have their memory at once.
NEW = {
    "import of provider": pool("if follows: import provider", "import provider\ntime.sleep(1)"),
    "import of partly": pool("if follows: import partly", """
if worker < 2: import partly
else: kept = [bytes(4000) for number in range(10_000)]
time.sleep(1)"""),
    "received": """
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
""",
    "loaded": pool("""
def read():
    return open(sys.argv[0] + ".data", "rb").read()
data = read() if follows else None""", "data = data or read()\ntime.sleep(1)"),
    "own data": pool("""
cache = {}
def answer(number):
    if number not in cache:
        cache[number] = bytes(4000)
def fill():
    for number in range(8000):
        answer(number)
if follows: fill()""", "fill()\ntime.sleep(1)"),
}
STARTED_ALIKE = """
import multiprocessing, sys, time
data = [bytes(4000) for number in range(8000)]
if __name__ == '__main__':
    with multiprocessing.get_context('fork' if len(sys.argv) > 1 else 'spawn').Pool(4) as pool:
        pool.map(time.sleep, [1] * 4, 1)
"""
BURST = pool("kept = []", """
burst = [b'x' * 9000 for number in range(6000)]
kept = [burst[number] for number in range(0, 6000, 60)]
time.sleep(0.2)  # cowtop looks, and then must again although nothing is written
burst = None
if follows:
    import ctypes
    ctypes.CDLL(None).malloc_trim(0)
time.sleep(6)""")  # cowtop looks at few processes a second
# Not even malloc_trim(3) gives back what is free at the top of a thread's arena.
BURST_OF_THREAD = pool("import threading\nkept = []", """
def burst():
    bytes(25 << 20)  # malloc() maps nothing of up to that from here on
    burst = [b'x' * 70_000 for number in range(600)]
    kept.extend(burst[:300:30])
thread = threading.Thread(target=burst)
thread.start()
thread.join()
time.sleep(3)""")
POOLS = pool("kept = []", """
way = sys.argv[1] if follows else ""
def burst():
    data = [{"number": i, "name": str(i)} for i in range(150_000)]
    if way in ("", "malloc"): kept.extend(data[::3000])
if way != "child":
    burst()
elif os.fork() == 0:
    burst()
    os._exit(0)
else:
    os.wait()
if not kept: kept.extend({"number": i, "name": str(i)} for i in range(0, 150_000, 3000))
if way == "malloc":
    import ctypes
    ctypes.CDLL(None).malloc_trim(0)
time.sleep(6)""")  # cowtop looks at few processes a second
RECEIVED_IN_PERL = """
my $data = 'x' x 30_000_000;
for (1..3) {
  pipe(my $in, my $out);
  if (fork) { close $in; syswrite $out, $data unless @ARGV; close $out; next }
  close $out;
  my $own = '';
  1 while sysread $in, $own, 1 << 20, length $own;
  sleep 1;
  kill 9, $$
}
1 while wait > 0;
"""



@contextlib.contextmanager
def script(text, suffix=".py"):
    """The path of a file with it."""
    with tempfile.NamedTemporaryFile("w", suffix=suffix) as file:
        file.write(text)
        file.flush()
        yield file.name


def record(command, *options, **environment):
    """The report of a run, and its numbers."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "run.cow")
        subprocess.run([COWTOP, "record", "--backend", "tracepoint", *options, "-o", path, "--", *command],
                       stdout=subprocess.DEVNULL, check=True, env={**os.environ, **environment})
        report = subprocess.run([COWTOP, "report", path], capture_output=True, text=True, check=True).stdout
        numbers = json.loads(subprocess.run([COWTOP, "report", "--json", path], capture_output=True, check=True).stdout)
    return report, numbers


def measure(command, **environment):
    """The report of a run, the bytes that all its processes copied, and these with what they shared and what is new."""
    report, numbers = record(command, "-c", "8", **environment)
    copied = 0
    for process in numbers["processes"]:
        pages = process["copied_anon_pages"] + process["copied_file_pages"]
        copied += 4096 * (process["copied_pages_before_exec"] if process["execs"] and process["role"] != "root" else pages)
    children = numbers["processes"][1:]
    shared = max((process["shared_at_fork_bytes"] or 0 for process in children), default=0)
    return report, copied, copied + shared + sum(4096 * process["zero_filled_pages"] for process in children)


UVICORN = """
import glob, os, subprocess, sys, time
folder = os.path.dirname(os.path.abspath(__file__))
async def app(scope, receive, send):
    for _ in range(2):
        message = await receive()
        open(f"{folder}/{message['type']}.{os.getpid()}", "w").close()
        await send({"type": message["type"] + ".complete"})
if __name__ != "__main__":
    import provider
else:
    words = ["gunicorn", "-k", "uvicorn.workers.UvicornWorker", "--preload", "-w", "3", "-b", "127.0.0.1:0"]
    words = words if len(sys.argv) > 1 else ["uvicorn", "--workers", "3", "--port", "0"]
    for old in glob.glob(folder + "/lifespan.*"): os.remove(old)
    server = subprocess.Popen([sys.executable, "-B", "-m", *words, "program:app"], cwd=folder, start_new_session=True)
    while len(glob.glob(folder + "/lifespan.startup.*")) < 3: time.sleep(0.05)
    time.sleep(1)
    os.killpg(server.pid, 9)  # a worker that ends copies all that it frees
    server.wait()
"""
LOKY = """
import joblib, sys, time
def work(number):
    import provider
    time.sleep(0.5)
    return len(provider.table)
if __name__ == "__main__":
    import provider
    joblib.Parallel(3, backend="multiprocessing" if len(sys.argv) > 1 else "loky")(joblib.delayed(work)(i) for i in range(6))
"""
SQLITE = """
import os, sqlite3, sys
data = sqlite3.connect(sys.argv[0] + ".db")
data.execute(f"PRAGMA cache_size={-1000 if len(sys.argv) > 1 else -100000}")
data.execute("CREATE TABLE IF NOT EXISTS t (text)")
data.executemany("INSERT INTO t VALUES (?)", (("x" * 1000,) for _ in range(60_000)))
data.commit()
data.execute("SELECT sum(length(text)) FROM t").fetchall()
os._exit(0)
"""

# A page in each 2 MiB.
SPARSE = pool("import mmap", """
data = mmap.mmap(-1, 66 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
data.madvise(mmap.MADV_NOHUGEPAGE if follows else mmap.MADV_HUGEPAGE)
for at in range(worker << 12, 64 << 20, 2 << 20): data[at] = 1
time.sleep(3)""")


def is_installed(*modules):
    return not subprocess.run([PYTHON, "-c", f"import {', '.join(modules)}"], stderr=subprocess.DEVNULL).returncode


class NewMemory(unittest.TestCase):
    def follow(self, cause, program, command=(PYTHON, "-B"), language=NEW_PYTHON, row=None, peak=True,
               way="follow", remedy=None, beside=0.0, **environment):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "program.py")
            with open(path, "w") as file:
                file.write(program)
            with open(path + ".data", "wb") as file:
                file.write(bytes(30 << 20))
            for module in ("provider", "partly"):
                with open(os.path.join(folder, module + ".py"), "w") as file:
                    file.write("table = {i: ['item %d' % i] for i in range(200_000)}\n")
            plain, followed = record([*command, path]), record([*command, path, way], **environment)
        self.assertRegex(plain[0], rf"(?m)^  NEW +[\d.]+ MiB +\d+%  {row or cause}$")
        module = cause.removeprefix("import of ")
        of_language = TEXTS.get(f"{language} {cause}") or TEXTS.get(cause)
        remedy = remedy or of_language if module == cause else f"import {module} before the fork"
        text = " ".join(plain[0].split())
        self.assertIn(remedy, text)
        said = re.search(re.escape(remedy) + r"(?: \([^()]*\))? \(saves at most (\d+)", text)
        if not said:  # beside what one receives, another copies to send it
            self.assertEqual(cause, "received", plain[0])
            return
        before, after = (run[1]["memory"]["peak_pss_bytes"] if peak else
                         sum(process["memory"]["private_bytes"] for process in run[1]["processes"]
                             if process["ppid"] == run[1]["processes"][0]["pid"])
                         for run in (plain, followed))
        saved = (before - after) / 2**20
        self.assertGreaterEqual(saved, 0.8 * int(said[1]) - 1, plain[0])
        if "is not known" not in plain[0]:
            self.assertLessEqual(saved, (1 + beside) * int(said[1]) + 1, plain[0])  # PSS of all else varies

    def test_started_alike(self):
        self.follow("processes started alike", STARTED_ALIKE, row="own data")

    def test_sparse_huge_pages(self):
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
            if "[never]" in file.read():
                self.skipTest("transparent huge pages are off")
        self.follow("sparse huge pages", SPARSE, row="own data", beside=0.3)

    def test_free_in_malloc(self):
        self.follow("free in malloc", BURST, peak=False)

    @unittest.skipUnless(is_installed("uvicorn", "gunicorn"), "uvicorn or gunicorn is not installed")
    def test_uvicorn(self):
        self.follow("uvicorn", UVICORN, row="import of program")

    @unittest.skipUnless(is_installed("joblib"), "joblib is not installed")
    def test_loky(self):
        self.follow("loky", LOKY, row="import of provider")

    def test_sqlite(self):
        self.follow("libsqlite3", SQLITE, row=r"own data: libsqlite3 \(page cache\)")

    def test_free_in_malloc_of_threads(self):
        tunable = "glibc.malloc.mmap_threshold=65536"
        self.follow("free in malloc", BURST_OF_THREAD, peak=False, remedy="start with GLIBC_TUNABLES=" + tunable +
                    ": malloc_trim(0) leaves much in arenas of threads", GLIBC_TUNABLES=tunable)

    def test_free_in_pymalloc(self):
        for way, environment in ("child", {}), ("malloc", {"PYTHONMALLOC": "malloc"}), ("apart", {}):
            with self.subTest(way):
                # Pools that hold an object each, of three sizes in each arena, are not free.
                self.follow("free in pymalloc", POOLS, peak=False, way=way, beside=0.1, **environment)

    def test_received_in_perl(self):
        self.follow("received", RECEIVED_IN_PERL, ["perl"], "")


# Each worker prints what it holds alone in the end.
COUNTS = pool("data = [{'number': i} for i in range(400_000)]", """
for each in data: pass
time.sleep(1 + 11 * follows)
with open("/proc/self/smaps_rollup") as file:
    print(*(line.split()[1] for line in file if line.startswith("Private_Dirty:")), flush=True)""")


class Undo(unittest.TestCase):
    @unittest.skipUnless(cowshed, "the package was not built for this Python")
    def test_copies_that_changed_nothing(self):
        with script(COUNTS) as path:
            command = [PYTHON, path]
            report, _ = record(command)
            before, after = (sum(int(word) for word in subprocess.run(each, capture_output=True, text=True).stdout.split()) / 1024
                             for each in (command, [PYTHON, "-m", "cowshed", "run", "--undo", "--", *command, "follow"]))
        said = re.search(re.escape(TEXTS["copies that changed nothing"]) + r" \(saves at most (\d+) MiB\)", " ".join(report.split()))
        self.assertTrue(said, report)
        self.assertLessEqual(before - after, int(said[1]) + 1, report)
        self.assertGreaterEqual(before - after, 0.8 * int(said[1]), report)


class Settle(unittest.TestCase):
    def follow(self, name, plain_command, settled_command):
        plain, settled = (record(command) for command in (plain_command, settled_command))
        said = re.search(re.escape(TEXTS[name]) + r": each fork copies ([\d.]+) MiB of page tables, in ([\d.]+) ms[^()]* "
                         r"\(saves at most (\d+) MiB\)", " ".join(plain[0].split()))
        self.assertTrue(said, plain[0])
        self.assertNotIn("settle the heap", settled[0])
        before, after = ([process["page_tables_at_fork_bytes"] / 2**20 for process in numbers["processes"][1:]]
                         for _, numbers in (plain, settled))
        self.assertAlmostEqual(float(said[1]), before[0], delta=0.1)
        saved = sum(before) - sum(after)
        self.assertAlmostEqual(saved, int(said[3]), delta=0.1 * saved + 1)

    def test_settle(self):
        self.follow("C and C++ page tables", *([os.environ["SHARE_SUBJECT"], "heap", kind, "600000", "0", "3000"]
                                for kind in ("plain", "settled")))

    @unittest.skipUnless(cowshed, "the package was not built for this Python")
    def test_python_settle(self):
        with script(pool("data = [bytes(4000) for i in range(300_000)]", "time.sleep(1)")) as path:
            command = [PYTHON, path]
            self.follow(f"{NEW_PYTHON} page tables", command, [PYTHON, "-m", "cowshed", "run", "--settle", "--", *command])


# Two mappings that are one, of more than the kernel lets anybody reserve.
TOO_LARGE = """
import mmap, os, sys
flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (0x4000 if len(sys.argv) > 1 else 0)  # MAP_NORESERVE
with open("/proc/meminfo") as file:
    kib = {line.split(":")[0]: int(line.split()[1]) for line in file}
data = [mmap.mmap(-1, (kib["MemTotal"] + kib["SwapTotal"]) * 600, flags) for _ in range(2)]
for _ in range(3):
    try:
        if os.fork() == 0: os._exit(0)
        os.wait()
    except OSError:
        pass
"""
# Two of three children want a lock that a thread holds; the third waits for what another process may send.
LOCKED = """
import multiprocessing, os, threading, time
queue, lock, held = multiprocessing.SimpleQueue(), threading.Lock(), threading.Event()
threading.Thread(target=lambda: (lock.acquire(), held.set(), time.sleep(60)), daemon=True).start()
held.wait()
children = []
for wait in (lock.acquire, queue.get, lock.acquire):
    children.append(os.fork())
    if children[-1] == 0: wait()
time.sleep(12)
for child in children: os.kill(child, 9); os.wait()
os._exit(0)
"""
STARTS = """
import os, sys
data = [bytes(4000) for i in range(300_000)]
for _ in range(10):
    if len(sys.argv) > 1: os.posix_spawn("/bin/true", ["true"], {})
    elif os.fork() == 0: os.execv("/bin/true", ["true"])
    os.wait()
"""


class Forks(unittest.TestCase):
    def follow(self, name, *commands, **environment):
        """What forks cost before and after."""
        plain, followed = record(commands[0]), record(commands[1], **environment)
        self.assertIn(TEXTS[name], " ".join(plain[0].split()))
        self.assertNotIn(TEXTS[name], " ".join(followed[0].split()))
        return [numbers["processes"][0]["fork_costs"] for _, numbers in (plain, followed)]

    def follow_script(self, name, text):
        with script(text) as path:
            return self.follow(name, [PYTHON, path], [PYTHON, path, "follow"])

    def test_failed_forks(self):
        with open("/proc/sys/vm/overcommit_memory") as file:
            if file.read() != "0\n":
                self.skipTest("vm.overcommit_memory is not 0")
        before, after = self.follow_script("failed forks", TOO_LARGE)
        self.assertEqual((before["forks"], before["failed"], after["forks"], after["failed"]), (0, 3, 3, 0))

    def test_a_child_that_waits_for_a_lock_of_the_fork(self):
        with script(LOCKED) as path:
            report, _ = record([PYTHON, path])
        self.assertRegex(" ".join(report.split()), r" 2 children wait for ever in a lock .* as PID \d+ \(python3")

    def test_slow_forks_for_programs(self):
        before, after = self.follow_script("programs", STARTS)
        self.assertEqual((before["forks"], after["forks"], after["spawns"]), (10, 0, 10))

    def test_small_pages(self):
        command = [os.environ["SHARE_SUBJECT"], "heap", "plain", "600000", "0", "3000"]
        before, after = self.follow("C and C++ small pages", command, command, GLIBC_TUNABLES="glibc.malloc.hugetlb=1")
        self.assertLess(after["median_ns"], before["median_ns"] / 3)


# Receivers collect less; counts are then the first to write to some pages; Perl's own writes to the same objects end.
NOT_KNOWN = {"pickling", "PHP garbage collector", "object flags"}


class Remedies(unittest.TestCase):
    def test_each_remedy_is_followed(self):
        followed = {*C, "C and C++ reference count", "processes started alike", "copies that changed nothing", "free in malloc", f"{NEW_PYTHON} free in pymalloc", "uvicorn", "loky", "libsqlite3", *(name for name, *_ in SCRIPTS), *(name.split(" of ")[0] for name in NEW),
                    f"{NEW_PYTHON} page tables", "C and C++ page tables", "C and C++ small pages", "failed forks", "sparse huge pages", "LD_BIND_NOW=1", f"{NEW_PYTHON} received",
                    "R allocator free list",  # the same as of its collector
                    f"{NEW_PYTHON} reference count", f"{NEW_PYTHON} cached hash"}  # tests/share/python/readings_test.py
        self.assertEqual(followed, set(TEXTS))

    def follow(self, name, command, words=("follow",), **environment):
        report, before, all_before = measure(command)
        advice = " ".join(report.split("\n  TRY ")[-1].split())
        self.assertIn(TEXTS[name], advice, report)
        after_report, after, all_after = measure([*command, *words], **environment)
        if name == "malloc_trim(0)":  # copies become new memory: the parent has less
            before, after = all_before, all_after
        else:
            self.assertLess(after, before / 2, report + after_report)
        said = re.search(re.escape(TEXTS[name]) + r" \(saves at most (\d+) MiB\)", advice)
        self.assertFalse(said and name in NOT_KNOWN, report)
        if said:
            saved = (before - after) / 2**20
            self.assertLessEqual(saved, int(said[1]), report + after_report)
            self.assertGreaterEqual(saved, 0.8 * int(said[1]) - 1, report + after_report)

    def follow_script(self, name, program, text):
        with script(text, ".script") as path:
            self.follow(name, [program, path])

    @unittest.skipUnless(shutil.which("perl"), "no perl")
    def test_perl_of_another_name(self):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(shutil.which("perl"), f"{folder}/worker")
            self.follow_script("reference count", f"{folder}/worker",
                               *(text for name, program, text in SCRIPTS if (name, program) == ("reference count", "perl")))

    def test_LD_BIND_NOW(self):
        functions = [f"f{i}" for i in range(200_000)]
        with tempfile.TemporaryDirectory() as folder:
            with open(f"{folder}/calls.s", "w") as file:
                file.write(".section .note.GNU-stack,\"\"\n.text\n.globl call_all\ncall_all:\npush %rax\n" + "".join(f"call {each}@PLT\n" for each in functions) +
                           "pop %rax\n" + "".join(f".globl {each}\n{each}:\n" for each in functions) + "ret\n")
            with open(f"{folder}/main.c", "w") as file:
                file.write("#include <sys/wait.h>\n#include <unistd.h>\nvoid call_all(void);\nint main(void) {\n"
                           "for (int i = 0; i < 4; ++i) if (fork() == 0) { call_all(); _exit(0); }\n"
                           "while (wait(0) > 0) continue;\n}\n")
            for command in ("-shared calls.s -o libcalls.so", "main.c -L. -lcalls -Wl,-rpath,$ORIGIN -Wl,-z,lazy -o main"):
                subprocess.run(["cc", *command.split()], cwd=folder, check=True)
            self.follow("LD_BIND_NOW=1", [f"{folder}/main"], (), LD_BIND_NOW="1")


def add(each, name, test, reason=None):
    setattr(each, "test_" + re.sub(r"\W", "_", name), unittest.skip(reason)(test) if reason else test)


for cause in C:
    name = f"C and C++ {cause}" if cause == "reference count" else cause
    add(Remedies, "c " + cause, lambda self, arguments=(name, [os.environ["REMEDIES"], cause]): self.follow(*arguments))
for name, program, source in SCRIPTS:
    no_remedy = sys.version_info >= (3, 12) and name in ("older Python reference count", "older Python cached hash")
    add(Remedies, f"{os.path.basename(program)} {name}",
        lambda self, arguments=(name, program, source): self.follow_script(*arguments),
        "readings_test follows cowshed.freeze()" if no_remedy else None if shutil.which(program) else f"no {program}")
for cause, source in NEW.items():
    add(NewMemory, cause, lambda self, cause=cause, source=source: self.follow(cause, source))

libraries = sorted(glob.glob("/usr/lib/x86_64-linux-gnu/libLLVM*.so*"), key=os.path.getsize)
os.environ.setdefault("LIBRARY", libraries[-1] if libraries else "")
unittest.main(verbosity=2)
