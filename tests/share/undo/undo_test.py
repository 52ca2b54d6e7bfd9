"""Tests `cowshed run --undo`: programs of several languages that nobody edits.  SUBJECT is a program of C++."""

import ctypes.util
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest

SUBJECT = os.environ["SUBJECT"]
# Each reads its data in a child, waits until two thirds of the copies are gone, and reads again.
PROGRAMS = {
    "python3": """
        import os, time
        rows = [[number, "row number %d" % number] for number in range(60_000)]
        def read(): return sum(row[0] + len(row[1]) for row in rows)
        def own():
            with open("/proc/self/smaps_rollup") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("Anonymous"))
        if os.fork() == 0:
            total, before = read(), own()
            while own() > before / 3: time.sleep(0.1)
            print(before, own(), "right" if read() == total else "wrong", flush=True)
            os._exit(0)
        os._exit(os.wait()[1])
        """,
    "perl": """
        my %rows = map { ("key $_" => [$_, "row number $_"]) } 1 .. 50_000;
        sub total { my $sum = 0; for (values %rows) { my $row = $_; $sum += $row->[0] + length $row->[1] } $sum }
        sub own { open my $file, "<", "/proc/self/smaps_rollup"; (join "", <$file>) =~ /Anonymous: +(\\d+)/; $1 }
        if (!fork) {
            my ($total, $before) = (total, own);
            select undef, undef, undef, 0.1 while own() > $before / 3;
            printf "%d %d %s\\n", $before, own, total() == $total ? "right" : "wrong";
            exit;
        }
        exit(wait() < 0 || $? != 0);
        """,
    "php": r"""
        <?php
        $rows = [];
        for ($i = 0; $i < 150000; $i++) $rows[] = [$i, "row number $i"];
        function total($rows) { $sum = 0; foreach ($rows as $row) { $text = $row[1]; $sum += $row[0] + strlen($text); } return $sum; }
        function own() { preg_match('/Anonymous: +(\d+)/', file_get_contents('/proc/self/smaps_rollup'), $found); return $found[1]; }
        $child = pcntl_fork();
        if ($child == 0) {
            [$total, $before] = [total($rows), own()];
            while (own() > $before / 3) usleep(100000);
            printf("%d %d %s\n", $before, own(), total($rows) == $total ? 'right' : 'wrong');
            exit(0);
        }
        pcntl_waitpid($child, $status);
        exit($status);
        """}

OWN_MALLOC = """
#include <pthread.h>
#include <string.h>
#include <unistd.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void take(void) { pthread_mutex_lock(&lock); }
static void give(void) { pthread_mutex_unlock(&lock); }
__attribute__((constructor)) static void begin(void) { pthread_atfork(take, give, give); }
static char memory[4 << 20];
static size_t used;
void *malloc(size_t size) {
    take();
    void *block = memory + (used += (size + 31) / 16 * 16) - (size + 15) / 16 * 16;
    give();
    return block;
}
void *calloc(size_t count, size_t size) { return malloc(count * size); }
void *realloc(void *from, size_t size) { return from ? memcpy(malloc(size), from, size) : malloc(size); }
void free(void *block) {}
int main() {
    memset(malloc(2 << 20), 7, 2 << 20);
    return fork() < 0;
}
"""


class UndoTest(unittest.TestCase):
    def run_it(self, command, *options, **environment):
        return subprocess.run([sys.executable, "-m", "cowshed", "run", "--above", "1MiB", *options, "--", *command],
                              env={**os.environ, **environment}, capture_output=True, text=True, timeout=100)

    def subject(self, *arguments, **environment):
        return self.run_it([SUBJECT, *arguments], "--undo", **{"COWSHED_UNDO": "1", **environment})

    def assert_undone(self, done, workers=1):
        self.assertEqual(done.returncode, 0, (done.stdout, done.stderr))
        self.assertRegex(done.stdout, r"^(\d+ \d+ right\n){%d}$" % workers)
        self.assertRegex(done.stderr, r"cowshed: PID \d+: undoes copies: settled [0-9.]+ MiB in [0-9.]+ s\n$")

    def test_programs_that_nobody_edits(self):
        self.assert_undone(self.subject("undo"), workers=2)
        if os.geteuid() == 0:
            self.assert_undone(self.subject("undo_as_nobody"))
            self.assert_undone(self.subject("undo_of_nobody"))
        for malloc in ("jemalloc", "tcmalloc_minimal", "mimalloc"):
            if library := ctypes.util.find_library(malloc):
                with self.subTest(malloc):
                    self.assert_undone(self.subject("undo", LD_PRELOAD=library), workers=2)
        for program, text in PROGRAMS.items():
            path = shutil.which(program) if program != "python3" else sys.executable
            if not path:
                continue
            by_default = program == "python3" and sys.version_info < (3, 12)
            options, environment = ([], {}) if by_default else (["--undo"], {"COWSHED_UNDO": "1"})
            with self.subTest(program), tempfile.NamedTemporaryFile("w") as file:
                file.write(textwrap.dedent(text).lstrip())
                file.flush()
                self.assert_undone(self.run_it([path, file.name], *options, **environment))

    def test_what_a_program_can_rely_on(self):
        for what, says in (("end_threads", "flushed\n"), ("crash", ""), ("fork_in_handlers", ""),
                           ("fork_in_the_last_handler", ""), ("fork_beside_a_sandbox", ""), ("fork_in_a_sandbox", ""),
                           ("give_back", ""), ("never_fork", "")):
            with self.subTest(what):
                done = self.subject(what)
                self.assertEqual((done.returncode, done.stdout), (0, says), done.stderr)

    def test_a_line_says_why_not(self):
        cases = [
            ([SUBJECT, "end_threads"], {"COWSHED": "off"}, None),
            ([SUBJECT, "end_threads"], {"COWSHED_LOG": "none"}, None),
            (["/sbin/ldconfig", "--version"], {}, "/sbin/ldconfig is linked statically"),
            (["/usr/bin/su", "--version"], {}, "/usr/bin/su is a setuid program")]
        for command, environment, why in cases:
            with self.subTest(command=command, **environment):
                done = self.run_it(command, "--undo", **environment)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertRegex(done.stderr, f"^cowshed: PID \\d+: undoes no copies: .*{why}" if why else "^$")

    def test_a_program_with_a_malloc_of_its_own(self):
        with tempfile.TemporaryDirectory() as folder:
            program = os.path.join(folder, "program")
            subprocess.run([os.environ["CC"], "-x", "c", "-", "-o", program, "-rdynamic"], input=OWN_MALLOC, text=True,
                           check=True)
            done = self.run_it([program], "--undo")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stderr, "^cowshed: PID \\d+: undoes no copies: malloc is the program's own; [^\n]*\n$")

    def test_what_the_command_hands_on(self):
        done = self.run_it(["sh", "-c", "echo $LD_PRELOAD $COWSHED_UNDO"], "--undo", LD_PRELOAD="libm.so.6")
        self.assertRegex(done.stdout, r"^/\S+/libcowshed_undo.so:libm.so.6 0.01$")


if __name__ == "__main__":
    unittest.main()
