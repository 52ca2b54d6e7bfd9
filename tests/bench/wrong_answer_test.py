#!/usr/bin/env python3
"""Benchmarks say so when a rival answers wrongly or is not what it should be, and tell no time:
wrong_answer_test.py BUILD [TEST...]"""

import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

BUILD = pathlib.Path(sys.argv[1]).resolve()
RIGHT = "return total & WORD"
WRONG = "return total + 1 & WORD"

LONGEST_S = 100  # of one run, on a busy machine
THP = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
HAS_THP = THP.exists() and "[never]" not in THP.read_text(encoding="utf-8")
PR_SET_THP_DISABLE = 41

C_HEAD = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
"""

# As the kernel has them, the arguments of syscall().
C_SYSCALL = r"""
static void look(long number, long* arguments);
static int is_denied;
long syscall(long number, ...) {
  long a[6];
  va_list list;
  va_start(list, number);
  for (int i = 0; i < 6; ++i) a[i] = va_arg(list, long);
  va_end(list);
  look(number, a);
  if (is_denied) return is_denied = 0;
  long (*called)(long, ...) = dlsym(RTLD_NEXT, "syscall");
  return called(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
"""

# A fork() that knows the array or the last object on the heap, which operator new allocates, and how
# often it was called.
C_FORK = r"""
static volatile unsigned long* words;
static int forks;
void* aligned_alloc(size_t alignment, size_t size) {
  void* (*allocated)(size_t, size_t) = dlsym(RTLD_NEXT, "aligned_alloc");
  void* block = allocated(alignment, size);
  if (size >= 4 << 20 || size == 48) words = block;
  return block;
}
pid_t fork(void) {
  pid_t (*forked)(void) = dlsym(RTLD_NEXT, "fork");
  ++forks;
  pid_t pid = forked();
  if (pid == 0) { INSTEAD; }
  return pid;
}
"""

# The same cowtop, but for what it says in JSON.
COWTOP = r"""#!/usr/bin/python3
import json, os, signal, subprocess, sys
command = ["COWTOP", *sys.argv[1:]]
if "--json" not in sys.argv:
    os.execv(command[0], command)
signal.signal(signal.SIGINT, lambda *_: cowtop.send_signal(signal.SIGINT))
cowtop = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
report = json.loads(cowtop.communicate()[0])
INSTEAD
print(json.dumps(report))
"""

# As bpftrace and perf say it when they are interrupted.
COUNTER = r"""#!/usr/bin/python3
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
if sys.argv[0].endswith("perf"):
    control, answer = [int(end) for end in sys.argv[-1].partition("fd:")[2].split(",")]
    open(control, "rb").readline()
    open(answer, "wb").write(b"ack\n")
else:
    print("ready", flush=True)
signal.sigwait([signal.SIGINT])
print("SAYS")
"""


def run(command, questions="", environment=None, prepare=None):
    """With nothing left of it where it takes too long."""
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **(environment or {})}, preexec_fn=prepare, start_new_session=True)
    try:
        output, errors = process.communicate(questions, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise AssertionError(f"still running after {LONGEST_S} s: {command}") from None
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def can_observe():
    """Whether cowtop is exact here, as the benchmarks ask."""
    answer = subprocess.run([BUILD / "tools/cowtop", "doctor", "--json"], capture_output=True, check=False)
    return any(row["backend"] == "tracepoint" and row["works"]
               for row in json.loads(answer.stdout)["backends"])


def without_thp(is_without):
    """For what is started: no 2 MiB pages, whatever it asks for."""
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(PR_SET_THP_DISABLE, int(is_without), 0, 0, 0)


class WrongAnswerTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="cowshed-wrong-answer-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name) / "bench"
        self.tools = pathlib.Path(folder.name) / "tools"
        self.folder.mkdir()
        self.tools.mkdir()

    def copy(self, *names):
        for name in names:
            shutil.copy(BUILD / "bench" / name, self.folder)

    def write_program(self, path, text):
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def run_here(self, *command, environment=None):
        return run([self.folder / command[0], "--quick", *command[1:]], environment=environment)

    def expect(self, run, why):
        """That it said why, and told no time; that all is well where there is no reason."""
        self.assertEqual(run.returncode, 1 if why else 0, run.stdout + run.stderr)
        self.assertTrue(re.search(why, run.stderr), run.stderr)
        self.assertEqual(run.stdout == "", why != "", run.stdout)

    def expect_of_scripts(self, benchmark, group, script, wrongs):
        """`wrongs`: what stands in the script instead of what, and what is said then."""
        self.copy(benchmark, script)
        right = (self.folder / script).read_text(encoding="utf-8")
        for before, instead, why in (("", "", ""), *wrongs):
            if why:
                self.assertEqual(right.count(before), 1, before)
            self.write_program(self.folder / script, right.replace(before, instead))
            self.expect(self.run_here(benchmark, "--only", group), why)

    def preload(self, text, name="wrong"):
        if not shutil.which("gcc"):
            self.skipTest("no gcc")
        source = self.folder / f"{name}.c"
        source.write_text(C_HEAD + text, encoding="ascii")
        library = source.with_suffix(".so")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
        return {"LD_PRELOAD": str(library)}

    def expect_of_libraries(self, benchmark, group, text, wrongs):
        """`wrongs`: what a library that is preloaded does instead, and what is said then."""
        self.copy(benchmark)
        self.assertEqual(text.count("INSTEAD"), 1)
        for instead, why in (("", ""), *wrongs):
            environment = self.preload(text.replace("INSTEAD", instead))
            self.expect(self.run_here(benchmark, "--only", group, environment=environment), why)

    def run_subject(self, program, configuration, questions="", environment=None, is_without=False):
        return run([BUILD / "bench" / program, "--subject", json.dumps(configuration)], questions,
                   environment, without_thp(is_without))

    def write_cowtop(self, instead="pass"):
        self.write_program(self.tools / "cowtop", COWTOP.replace(
            "COWTOP", str(BUILD / "tools/cowtop")).replace("INSTEAD", instead))

    def test_sharing(self):
        self.expect_of_scripts("sharing", "1 MiB", "sharing_python", (
            (RIGHT, WRONG, "Python, forked: worker 0 has answered wrongly in pass 0"),))

    def test_applications(self):
        self.expect_of_scripts("applications", "data loader", "applications_python", (
            (RIGHT, WRONG, "data loader, Python: an epoch's checksum is wrong"),))

    def test_channel_rivals(self):
        sends = "self.out.put((stamp, self.body))"
        said = "(?s){}.*channel_rivals: .*Python Queue, rate/64 B: "
        self.expect_of_scripts("channel_rivals", "rate/64 B", "channel_rivals_python", (
            (sends, f"{sends}, {sends}", said.format("doubled")),
            (sends, sends.replace("body", "body[1:]"), said.format("not what was sent")),
            (sends, sends.replace("self.body", "bytes(len(self.body))"),
             said.format("other content"))))

    def test_channel_rivals_in_cxx(self):
        """A mq_send() in front of libc's, that sends something else now and then."""
        self.copy("channel_rivals_python")
        said = "POSIX mq, rate/64 B: .*"
        self.expect_of_libraries(
            "channel_rivals", "rate/64 B",
            "int mq_send(mqd_t queue, const char* text, size_t size, unsigned priority) {\n"
            "  static int count;\n"
            "  int (*sent)(mqd_t, const char*, size_t, unsigned) = dlsym(RTLD_NEXT, \"mq_send\");\n"
            "  if (++count % 100 == 0) { INSTEAD; }\n"
            "  return sent(queue, text, size, priority);\n}\n",
            (("sent(queue, text, size, priority)", said + "doubled"),
             ("((char*)text)[size - 1] ^= 1", said + "other content"),
             ("size -= 8", said + "a message of 56 bytes, not 64")))

    def test_allocators(self):
        self.copy("allocators", "fill", "fill_scope", "fill_jemalloc", "fill_mimalloc")
        self.expect(self.run_here("allocators", "--only", "churn/small"), "")
        shutil.copy(BUILD / "bench/fill", self.folder / "fill_mimalloc")  # with glibc's malloc
        self.expect(self.run_here("allocators", "--only", "churn/small"),
                    "mimalloc: malloc is provided by .*libc")
        for end, why in (("exit 127", "fill_mimalloc ended before it answered, with exit code 127"),
                         ("kill -9 $$", "fill_mimalloc was killed by signal 9 .*memory enough"),
                         ("echo hello", "fill_mimalloc said what is no answer: hello")):
            self.write_program(self.folder / "fill_mimalloc", f"#!/bin/sh\n{end}\n")
            self.expect(self.run_here("allocators", "--only", "churn/small"), why)

    def test_fill(self):
        for name in ("fill_jemalloc", "fill_scope"):
            self.copy("fill", "fill_scope", "fill_jemalloc")
            self.expect(self.run_here("fill", "--only", "churn/small/1"), "")
            shutil.copy(BUILD / "bench/fill", self.folder / name)  # with glibc's malloc
            self.expect(self.run_here("fill", "--only", "churn/small/1"),
                        f"{name.removeprefix('fill_')}: malloc is provided by .*libc")

    def test_fill_by_an_allocator_that_gives_a_block_twice(self):
        self.copy("fill", "fill_scope")
        for instead, why in (("", ""), ("if (++count == 50) return last",
                                        "a block does not hold what was written to it")):
            library = self.preload(
                "static int count;\n"
                "static void* last;\n"
                "void* malloc(size_t size) {\n"
                "  void* (*allocated)(size_t) = dlsym(RTLD_NEXT, \"malloc\");\n"
                f"  if (size == 100) {{ {instead}; return last = allocated(size); }}\n"
                "  return allocated(size);\n}\n", "libjemalloc_wrong")["LD_PRELOAD"]
            self.write_program(self.folder / "fill_jemalloc",
                               f"#!/bin/sh\nLD_PRELOAD={library} exec {BUILD}/bench/fill_jemalloc \"$@\"\n")
            self.expect(self.run_here("fill", "--only", "churn/small/1"), why)

    @unittest.skipUnless(HAS_THP, "no transparent huge pages")
    def test_huge_heaps(self):
        """Those that get no 2 MiB pages, in the sizes in which all must have them."""
        bytes_ = 64 << 20
        fill = {"pattern": "fill", "mix": "small", "threads": 1, "amount": bytes_,
                "variant": "malloc"}
        glibc = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        for program, configuration, environment, why in (
                ("fork_latency", {"memory": "huge heap", "layout": "array", "bytes": bytes_}, glibc,
                 "MiB only 0 are in 2 MiB pages"),
                ("sharing", {"way": "heap", "entries": 400_000}, glibc, "MiB only 0 are in 2 MiB pages"),
                ("fill", fill, glibc, "of 64 MiB only 0 are in 2 MiB pages"),
                ("fill_jemalloc", fill, {"MALLOC_CONF": "thp:always"},
                 "of 64 MiB only 0 are in 2 MiB pages"),
                ("fill_mimalloc", fill, {"MIMALLOC_LARGE_OS_PAGES": "1"},
                 "of 64 MiB only 0 are in 2 MiB pages")):
            question = '{"do": "end"}\n'
            right = self.run_subject(program, configuration, question, environment)
            self.assertEqual(right.returncode, 0, right.stdout)
            wrong = self.run_subject(program, configuration, question, environment, is_without=True)
            self.assertEqual(wrong.returncode, 1, wrong.stdout)
            self.assertIn(why, json.loads(wrong.stdout.splitlines()[-1])["error"])
            self.assertEqual([word for word in ('"ns"', '"us"') if word in wrong.stdout], [])

    def test_settings_of_allocators_that_are_inherited(self):
        """They would be those of rivals, and of none that the output names."""
        for name, value in (("MALLOC_CONF", "no_such_option:1,abort_conf:true"),
                            ("MALLOC_ARENA_MAX", "1"), ("MIMALLOC_VERBOSE", "1"),
                            ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")):
            run = subprocess.run([BUILD / "bench/fill", "--quick", "--only", "churn/small/1"],
                                 capture_output=True, text=True, check=False, timeout=100,
                                 env={**os.environ, name: value})
            self.assertEqual(run.returncode, 0, run.stderr)
            self.assertEqual(run.stderr, f"fill: measured without {name}, which the environment sets\n")
            self.assertIn("jemalloc again", run.stdout)

    def test_a_group_that_is_not_there(self):
        run = subprocess.run([BUILD / "bench/deref", "--quick", "--only", "no such"], check=False,
                             capture_output=True, text=True, timeout=100)
        self.assertEqual((run.returncode, run.stderr),
                         (1, "deref: --only: no group has 'no such' in its name\n"))

    def test_fork_latency(self):
        self.expect_of_libraries("fork_latency", "heap/objects", C_FORK, (
            ("if (words) words[1] ^= 1", "a child does not read what its parent wrote"),
            ("if (forks > 3) raise(SIGKILL)", "a child did not end as it should")))

    def test_child_read(self):
        self.expect_of_libraries("child_read", "first touch", C_FORK, (
            ("if (words) words[0] ^= 1", "a child does not read what its parent wrote"),
            ("if (words && forks > 1) words[0] ^= 1", "a child read something else")))

    def test_child_read_counts(self):
        """Page faults, by a counter that stands still."""
        self.expect_of_libraries(
            "child_read", "child's cost",
            "static void alter(void* count, size_t size) { INSTEAD; }\n"
            "ssize_t read(int file, void* buffer, size_t size) {\n"
            "  ssize_t got = syscall(SYS_read, file, buffer, size);\n"
            "  if (size == 8 && got == 8) alter(buffer, size);\n"
            "  return got;\n}\n"
            "int getrusage(int who, void* usage) {\n"
            "  int failed = syscall(SYS_getrusage, who, usage);\n"
            "  alter(usage, 144);\n"
            "  return failed;\n}\n",
            (("memset(count, 0, size)", "page faults are not counted"),))

    def test_freeze(self):
        self.expect_of_libraries(
            "freeze", "freeze/array",
            "void* memcpy(void* to, const void* from, size_t size) {\n"
            "  memmove(to, from, size);\n"
            "  if (size >= 1 << 20) { INSTEAD; }\n"
            "  return to;\n}\n",
            (("((char*)to)[size / 2] ^= 1", "memcpy did not copy"),))

    @unittest.skipUnless(HAS_THP, "no transparent huge pages")
    def test_freeze_against_huge_pages(self):
        """Where memory is in 2 MiB pages unless it is refused."""
        self.expect_of_libraries(
            "freeze", "freeze/array",
            "void* __libc_malloc(size_t size);\n"
            "void* malloc(size_t size) {\n"
            "  char* block = __libc_malloc(size);\n"
            "  if (size >= 4 << 20) madvise(block - (size_t)block % 4096, size, MADV_HUGEPAGE);\n"
            "  return block;\n}\n"
            "int prctl(int option, long a, long b, long c, long d) {\n"
            "  INSTEAD;\n"
            "  return syscall(SYS_prctl, option, a, b, c, d);\n}\n",
            ((f"if (option == {PR_SET_THP_DISABLE}) return 0", "memcpy's blocks are not in 4 KiB pages"),))

    def test_freeze_audit(self):
        """A pagemap without any page, and one in which all are private."""
        self.expect_of_libraries(
            "freeze", "audit",
            "ssize_t pread(int file, void* buffer, size_t size, off_t offset) {\n"
            "  ssize_t got = syscall(SYS_pread64, file, buffer, size, offset);\n"
            "  if (size >= 4096) { INSTEAD; }\n"
            "  return got;\n}\n",
            (("memset(buffer, 0, size)", "0 private pages found by pagemap, 20 written"),
             ("for (int i = 0; i < got; ++i) ((char*)buffer)[i] = i % 8 == 7 ? 0x80 : 0",
              r"\d+ private pages found by pagemap, 20 written")))

    def test_deref(self):
        """An object that is altered just before it is frozen."""
        self.expect_of_libraries(
            "deref", "independent", C_SYSCALL +
            "static void look(long number, long* a) {\n"
            "  if (number != SYS_mmap || a[2] != PROT_READ) return;\n"
            "  long* word = (long*)a[0];\n"
            "  for (long i = 0; i + 12 < a[1] / 8; ++i) {\n"
            "    if (word[i] == 7 && word[i + 4] == 8 && word[i + 8] == 9) { INSTEAD; }\n"
            "  }\n}\n",
            (("word[i] = 6", "a reference gave another object"),))

    def test_channel(self):
        writes = ("ssize_t write(int file, const void* text, size_t size) {\n"
                  "  static int count;\n"
                  "  ++count;\n"
                  "  INSTEAD;\n"
                  "  return syscall(SYS_write, file, text, size);\n}\n")
        self.expect_of_libraries("channel", "stream", writes, (
            ("if (size == 64 && count == 100) *(char*)text ^= 1", "pipe: other messages than were sent"),))
        self.expect_of_libraries("channel", "gibibyte mapped", writes, (
            ("if (size >= 1 << 20) *(char*)text ^= 1", "other bytes than were written to the pipe"),))

    def test_channel_python(self):
        self.copy("channel")
        for instead, why in (("put(self, message)", ""),
                             ("put(self, message), put(self, message)", "other messages than were put"),
                             ("put(self, message[1:])", "other messages than were put"),
                             ("put(self, message if message[0] != 200 else bytes(64))",
                              "other messages than were put")):
            (self.folder / "sitecustomize.py").write_text(
                "from multiprocessing.queues import Queue\n"
                "put = Queue.put\n"
                f"Queue.put = lambda self, message: ({instead})\n", encoding="ascii")
            self.expect(self.run_here("channel", "--only", "stream",
                                      environment={"PYTHONPATH": str(self.folder)}), why)

    def test_channel_asleep(self):
        """A wait of the bare rival's that returns at once."""
        self.expect_of_libraries(
            "channel", "asleep", C_SYSCALL +
            "static void look(long number, long* a) {\n"
            "  if (number == SYS_futex && a[1] == FUTEX_WAIT && a[3] == 0) { INSTEAD; }\n}\n",
            (("is_denied = 1", "futex: the receiver does not sleep"),))

    def test_channel_death(self):
        """A holder that is taken for dead while it lives."""
        self.expect_of_libraries(
            "channel", "death",
            "int fcntl(int file, int command, ...) {\n"
            "  va_list list;\n"
            "  va_start(list, command);\n"
            "  struct flock* argument = va_arg(list, void*);\n"
            "  va_end(list);\n"
            "  int result = syscall(SYS_fcntl, file, command, argument);\n"
            "  if (command == F_OFD_GETLK) { INSTEAD; }\n"
            "  return result;\n}\n",
            (("argument->l_type = F_UNLCK", "a send did not wait for the lock's holder"),))

    def test_launch(self):
        self.expect_of_libraries(
            "launch", "spawn",
            "int posix_spawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,\n"
            "                const posix_spawnattr_t* attributes, char* const argv[],\n"
            "                char* const envp[]) {\n"
            "  int (*spawned)() = dlsym(RTLD_NEXT, \"posix_spawn\");\n"
            "  if (argv[1] && strcmp(argv[1], \"--begin\") == 0) { INSTEAD; }\n"
            "  return spawned(pid, path, actions, attributes, argv, envp);\n}\n",
            (("path = \"/bin/true\"", "a worker by posix_spawn: a pipe ended early"),
             ("path = \"/bin/false\"", "a worker by posix_spawn: (a pipe ended early|a worker has failed)")))

    def test_launch_by_another_clock(self):
        self.expect_of_libraries(
            "launch", "spawn",
            "extern char* program_invocation_short_name;\n"
            "int clock_gettime(clockid_t clock, struct timespec* now) {\n"
            "  int failed = syscall(SYS_clock_gettime, clock, now);\n"
            "  if (strcmp(program_invocation_short_name, \"worker\") == 0) { INSTEAD; }\n"
            "  return failed;\n}\n",
            (("now->tv_sec -= 60",
              "a worker by posix_spawn: it did not begin when it was started"),))

    def test_start_methods(self):
        self.expect_of_scripts("start_methods", "job/python", "start_python", (
            ("first, sum(words))", "first, sum(words) + 1)",
             "a worker by fork has added up something else"),
            ("first = words[0]", "first = words[1] + 1",
             "a worker by fork has added up something else")))
        self.expect_of_scripts("start_methods", "python/4 MiB", "start_python", (
            ("pipe.send(time.monotonic_ns())", "pipe.send(0)",
             "a worker by fork did not begin when it was started"),))

    def test_measuring(self):
        if not can_observe():
            self.skipTest("cowtop cannot be exact here")
        self.copy("measuring")
        self.write_cowtop()
        enough = 1 << 30
        stat, record = "{};;minor-faults;1;100.00;;", "wrote 1 MB perf.data ({} samples) ]"
        for bpftrace, perf, why in ((enough, enough, ""),
                                    (5, enough, r"bpftrace( sum)? counted 5 of \d+ faults"),
                                    (enough, 5, r"perf (stat|record) counted 5 of \d+ faults"),
                                    (None, enough, 'bpftrace ended before it said "ready", '
                                                   "having said: nothing")):
            self.write_program(self.folder / "bpftrace", "#!/bin/sh\n" if bpftrace is None else
                               COUNTER.replace("SAYS", f"@total: {bpftrace}"))
            self.write_program(self.folder / "perf", COUNTER.replace(
                "SAYS", f"{stat.format(perf)}\\n[ perf record: {record.format(perf)}"))
            self.expect(self.run_measuring(), why)

    def run_measuring(self):
        path = f"{self.folder}:{os.environ['PATH']}"
        return self.run_here("measuring", "--only", "copy, 2 CPUs", environment={"PATH": path})

    def test_measuring_by_cowtop(self):
        if not can_observe():
            self.skipTest("cowtop cannot be exact here")
        self.copy("measuring")
        each = "for process in report['processes']: process['copied_pages']"
        for instead, why in (("pass", ""),
                             (f"{each} //= 3", r"cowtop counted \d+ of 192 faults"),
                             (f"{each} *= 20", r"cowtop counted \d+ of 192 copies"),
                             ("report['lost_events'] = 1", "cowtop was not exact"),
                             ("report['backend'] = 'perf'", "cowtop was not exact")):
            self.write_cowtop(instead)
            self.expect(self.run_here("measuring", "--only", "count"), why)

    def test_own_cost(self):
        if not can_observe():
            self.skipTest("cowtop cannot be exact here")
        self.copy("own_cost")
        each = "for process in report['processes']: process['copied_pages']"
        seen = r"cowtop has seen \d+ processes and \d+ copies a second, of 20 and "
        for group, instead, why in (("recording", "pass", ""),
                                    ("recording", f"{each} //= 10", seen + "10000"),
                                    ("start", "pass", ""),
                                    ("start", "del report['processes'][1:]", seen + "0")):
            self.write_cowtop(instead)
            self.expect(self.run_here("own_cost", "--only", group), why)
        self.write_program(self.tools / "cowtop", "#!/bin/sh\necho no such process\n")
        self.expect(self.run_here("own_cost", "--only", "recording"),
                    'cowtop ended before it said "attached to", having said: no such process')

    @unittest.skipUnless(pathlib.Path("/usr/bin/chromedriver").exists(), "no browser")
    def test_html_page(self):
        """A page whose script does not run to its end."""
        self.copy("html_page")
        recordings = self.folder.parent / "tests/tools/html_recordings"
        recordings.parent.mkdir(parents=True)
        recordings.symlink_to(BUILD / "tests/tools/html_recordings")
        for instead, why in (("cat", ""), ("sed 's/showReport(data)/showNothing(data)/'",
                                           r"the page shows no copied pages, of \d+")):
            self.write_program(self.tools / "cowtop", "#!/bin/sh\n"
                               f"{BUILD}/tools/cowtop \"$@\" || exit\n"
                               f"[ \"$3\" != --html ] || {{ {instead} \"$4\" > \"$4.new\" && "
                               "mv \"$4.new\" \"$4\"; }\n")
            self.expect(self.run_here("html_page"), why)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
