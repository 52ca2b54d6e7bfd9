"""Tests `cowshed run --warm`: programs that a zygote forks are as those that an interpreter executes."""

import concurrent.futures
import json
import os
import re
import sys
import time
import unittest

import run_test

ROWS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "warm_programs.py")
# The kernel's parent of a program that was forked is the zygote.
FORKED = """
    import os, sys
    def zygote():
        with open("/proc/self/stat") as file: parent = file.read().rpartition(")")[2].split()[1]
        try:
            with open(f"/proc/{parent}/cmdline") as file: return int(parent) if "cowshed.run.zygote" in file.read() else 0
        except OSError: return zygote()  # it has just ended
    def own():
        with open("/proc/self/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Private")) >> 10
"""


class Runner(run_test.Runner):
    def setUp(self):
        super().setUp()
        self.log = os.path.join(self.folder, "log")

    def warm(self, command, *options, **more):
        """The run, and what the log says of its starts."""
        done = self.run_it(command, options or ["--warm", "--preload", "json"], **{"COWSHED_LOG": self.log, **more})
        with open(self.log, "a+") as log:
            log.seek(0)
            return done, re.findall(r"PID \d+:? (?:starts by itself|a fork fails|stays as it is): (.*)", log.read())

    def shell(self, text, *options, **more):
        return self.warm(["bash", "-c", text], *options, PYTHON=sys.executable, PYTHONUNBUFFERED="", **more)


class AsExecutedTest(Runner):
    def compare_rows(self, *names, refused=()):
        """`refused`: why programs of these rows are not forked."""
        open(self.log, "w").close()
        command = [sys.executable, ROWS, *names]
        more = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": ""}
        with concurrent.futures.ThreadPoolExecutor() as pool:
            plain = pool.submit(self.run_it, command, None, **more)
            ours, reasons = self.warm(command, **more)
            plain = plain.result()
        rows = [[re.sub("0x[0-9a-f]+", "ADDRESS", line) for line in done.stdout.splitlines()] for done in (plain, ours)]
        self.assertGreater(len(rows[0]), 0)
        for theirs, line in zip(*rows, strict=True):
            (name, theirs), (_, line) = json.loads(theirs), json.loads(line)
            with self.subTest(row=name):
                self.assertEqual(line, theirs)
        self.assertEqual([why for why in reasons if not any(re.fullmatch(each, why) for each in refused)], [])

    def test_programs_end_as_without(self):
        self.compare_rows("-c: ", "a script: ", "-m: ")

    def test_programs_start_as_without(self):
        self.compare_rows("argv0")
        self.compare_rows("starts as", "standard input", refused=(
            ".*missing.py is no source file", "below is no source file", "- is no source file", "it has the option -[xX]",
            "bytecode is an archive or bytecode"))

    def test_programs_take_over_what_their_start_has(self):
        self.compare_rows("takes over", "bytes", "another parent", "pending", "alarm", "removed", "thousand", "closed",
                          "standard files", refused=("it has a limit: Max address space", "it has an alarm", ".* Permission denied.*"))
        self.compare_rows("priority")

    def test_no_sandbox_is_left(self):
        self.compare_rows("in a sandbox", refused=("it is in a sandbox .*", "it has a seccomp filter .*"))

    def test_modules_come_from_where_their_start_has_them(self):
        for name in "a relative path", "the home", "made later", "another archive", "another pth":
            self.compare_rows(name, refused=(".* has changed",))

    def test_signals_reach_programs_once(self):
        self.compare_rows("handles each signal", "ends by signal", "stop")

    def test_programs_fork_and_leave_children_as_without(self):
        self.compare_rows("killed", "daemon", "outlive", "setsid of", "forks", "random", "subprocesses", "exec of")

    def test_terminals_work_as_without(self):
        self.compare_rows("in a terminal")


class WarmTest(Runner):
    def test_the_third_start_shares_what_the_first_has_imported(self):
        site = "lib/python{}.{}/site-packages".format(*sys.version_info)
        os.makedirs(os.path.join(self.folder, site))
        for name, text in {"big": "data = {number: str(number) for number in range(200_000)}", "loud": "print('loud', flush=True)",
                           "words": "import sys; words = sys.argv[1:]", "late": "import os; late = os.environ['LATE']",
                           "sets": "import os; os.environ['SET'] = 'set'", "asks": "import os; asks = os.isatty(0)"}.items():
            self.write(f"{site}/{name}.py", text)
        self.write_library(itself="import time; at = time.monotonic()")
        self.write("program.py", FORKED + "    import time\n    begun = time.monotonic()\n    import big, loud, json, words, itself, asks, sets\n"
                   "    os.environ['LATE'] = words.words[-1] if words.words else ''\n    import late\n"
                   "    print(bool(zygote()), own(), late.late, os.environ['SET'], itself.at > begun)")
        os.mkdir(os.path.join(self.folder, "other"))
        self.write("other/program.py", FORKED + "    print(bool(zygote()), 'big' in sys.modules)")
        done, reasons = self.shell("$PYTHON program.py; $PYTHON program.py; for i in {1..99}; do $PYTHON program.py word | grep 'True.* word set True' && break; sleep 0.1; done; cd other; $PYTHON program.py",
                                   "--warm", PYTHONUSERBASE=self.folder, PYTHONNOUSERSITE="")
        self.assertEqual([*reasons[:2], reasons[-1]], ["it is the first start", "it is the second start", "it is the first start"])
        with open(self.log) as log:
            text = log.read()
        self.assertIn("leaves out loud: its import prints\n", text)
        self.assertIn("leaves out words: its import reads sys.argv\n", text)
        self.assertIn("leaves out asks: its import calls isatty()\n", text)
        lines = done.stdout.split("loud\n")
        self.assertEqual(len(lines), 3, "each imports what the zygote has left out")
        self.assertTrue(lines[2].endswith("False False\n"), "a program of the same name has a zygote of its own")
        plain, ours = int(lines[1].split()[1]), int(re.search(r"True (\d+) word", lines[2])[1])
        print(f"a start that is forked has {ours} MiB of its own, one that is not {plain}")
        if run_test.IN_PLACE:
            self.assertLess(ours, plain / 4)

    def write_library(self, **modules):
        os.makedirs(os.path.join(self.folder, "lib"), exist_ok=True)
        for name, text in modules.items():
            self.write(f"lib/{name}.py", text)

    def run_it(self, *arguments, **more):
        return super().run_it(*arguments, **{"PYTHONPATH": os.path.join(self.folder, "lib"), **more})

    def test_what_differs_takes_an_exec(self):
        self.write_library(reads="import os; mode = os.environ.get('MODE')", place="import os; place = os.getcwd()",
                           threads="import threading, time; threading.Thread(target=time.sleep, args=(9,)).start()",
                           slow="import time; time.sleep(6)", dies="import os; os.kill(os.getpid(), 9)", sets="import os; os.environ.update(SET='set'); os.environ.pop('GONE', 0)")
        self.write("program.py", FORKED + """    print(bool(zygote()))
    import sys, subprocess
    if "sets" in sys.modules: assert subprocess.check_output("echo $SET$GONE", shell=True) == b"set\\n"
    import threading
    assert threading.main_thread().native_id == threading.get_native_id()""")
        os.mkdir(os.path.join(self.folder, "own"))
        self.write("own/json.py", "")
        self.write("own/program.py", FORKED + "    print(bool(zygote()))")
        start = "$PYTHON program.py; "
        for preload, command, why in (
                ("json", f"LD_PRELOAD=libm.so.6 {start}", "LD_PRELOAD is libm.so.6"),
                ("json", f"PYTHONTRACEMALLOC=1 {start}", "PYTHONTRACEMALLOC is set"),
                ("json", "$PYTHON -X utf8 -c 'import os, signal, sys; signal.alarm(9); os.execv(sys.executable, [sys.executable, \"program.py\"])'",
                 "it has an alarm"),
                ("json", "$PYTHON -X utf8 program.py", "it has the option -X"),
                ("json", f"ulimit -v 9999999; {start}", "it has a limit: Max address space"),
                ("json", "$PYTHON own/program.py", "it has its own .*/own/json.py"),
                ("json", "$PYTHON -m json", ""),
                ("slow", start, ""),
                ("json.tool", "echo | $PYTHON -m json.tool 2>&1; echo False", "json.tool is imported already"),
                ("reads", f"{start} MODE=2 {start}", "its MODE in the environment is another"),
                ("reads", f"{start} LATER=2 {start}", ""),
                ("sets", f"SET=1 GONE=1 {start}", ""),
                ("place", f"{start} cd own; $PYTHON ../program.py", "its working directory is not .*"),
                ("place", f"{start} touch lib/place.py; {start}", ".*/place.py has changed"),
                ("threads", f"{start}{start}", "its import starts threads"),
                ("dies", f"{start}{start}", "the zygote was killed"),
                ("json", f"cp lib/reads.py reads.py; {start}", ""),
                ("reads,json", f"cp lib/reads.py reads.py; {start}", "it has its own .*/reads.py")):
            with self.subTest(command, preload=preload):
                os.path.exists(self.log) and os.unlink(self.log)
                done, reasons = self.shell(command, "--warm", "--preload", preload, expected=None)
                self.assertEqual("False" in done.stdout, bool(why), done.stdout + done.stderr)
                self.assertRegex(reasons[-1] if reasons else "", f"^{why}$")

    def test_an_import_may_keep_and_configure_standard_files(self):
        self.write_library(keeps="import sys; out, sys.stdin = sys.stdout.buffer, open(0, 'rb', closefd=False)\n"
                           "sys.stdout.reconfigure(newline='\\r\\n', errors='replace')")
        self.write("program.py", """
            import keeps, os, sys
            keeps.out.write(b"one\\n")
            sys.stdout.flush()
            os.write(1, b"two\\n")
            print("three\\ud800", sys.getsizeof(keeps.out), flush=True)
            os.write(1, b"four\\n")
            keeps.out.write(b"five\\n")""")
        command = " ".join(f"$PYTHON {options} program.py | cat -A; $PYTHON {options} program.py >out; cat -A out;" for options in ("", "-u"))
        plain, (ours, reasons) = self.shell(command, COWSHED="off")[0], self.shell(command, "--warm", "--preload", "keeps")
        self.assertEqual((ours.stdout, reasons), (plain.stdout, []))
        self.assertIn("three?", ours.stdout)

    def test_a_zygote_that_is_killed_costs_one_exec(self):
        self.write("program.py", FORKED + """
    print(zygote(), flush=True)
    if len(sys.argv) > 1:
        os.kill(zygote(), 9)
        while zygote(): pass
        sys.exit(7)""")
        done, reasons = self.shell("$PYTHON program.py kill; echo $?; for i in 1 2 3; do $PYTHON program.py; done",
                                   "--warm", "--preload", "json")
        first, status, second, third, fourth = map(int, done.stdout.split())
        self.assertIn(status, (7, 125), "125: before Linux 6.15")
        self.assertEqual((bool(first), second, third, reasons), (True, 0, fourth, ["the zygote was killed"]))
        self.assertNotIn(third, (0, first))

    def test_a_program_is_reaped_late_after_its_zygote_was_killed(self):
        self.write("program.py", FORKED + """
    os.kill(zygote(), 9)
    sys.exit(7)""")
        self.write("reaper.py", """
            import ctypes, os, subprocess, sys, time
            ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
            stub = subprocess.Popen([sys.executable, "program.py"]).pid
            time.sleep(1)
            while (found := os.wait())[0] != stub: pass
            print(os.waitstatus_to_exitcode(found[1]))""")
        done, _ = self.shell("$PYTHON -S reaper.py", "--warm", "--preload", "json")
        tells = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15)
        self.assertEqual(done.stdout, "7\n" if tells else "125\n", done.stderr)

    def test_who_looks_for_its_command_line_finds_it_once(self):
        name = f"looked_for_{os.getpid()}.py"
        self.write(name, FORKED + """
    import time
    print(bool(zygote()), flush=True)
    time.sleep(60)""")
        pattern = f"^[^ ]+ {name[:-1]}[y]"  # not the shell's own line
        done, _ = self.shell(f"$PYTHON {name} & sleep 1; pgrep -fc '{pattern}'; pkill -f '{pattern}'; wait $!; echo $?",
                             "--warm", "--preload", "json", expected=None)
        self.assertEqual(done.stdout.split(), ["True", "1", "143"], done.stderr)

    def test_many_starts_at_once(self):
        self.write("program.py", FORKED + "    print(zygote())\n    sys.exit(int(sys.argv[1]))")
        done, _ = self.shell("for i in {1..60}; do ($PYTHON program.py $i; [ $? = $i ] || echo wrong) & done; wait",
                             "--warm", "--preload", "json")
        self.assertEqual(len(done.stdout.split()), 60)
        self.assertLessEqual(len({*done.stdout.split()} - {"0"}), 1)

    def test_it_ends_when_it_is_idle_and_with_the_command(self):
        self.write("program.py", FORKED + "    print(zygote(), os.environ['COWSHED_WARM'].partition(':')[2])")
        self.write("wait.sh", """
            for i in 1 2; do set -- $($PYTHON program.py); echo $1 $2; [ $i = 2 ] || for j in {1..99}; do [ -e /proc/$1 ] && sleep 0.1; done; done""")
        done, _ = self.warm(["bash", "wait.sh"], "--warm", "--warm-idle", "0.1", "--preload", "json", PYTHON=sys.executable)
        (first, folder), (second, _) = (line.split() for line in done.stdout.splitlines())
        self.assertNotEqual(first, second)
        deadline = time.monotonic() + 20
        while os.path.exists(folder) or os.path.exists(f"/proc/{second}"):
            self.assertLess(time.monotonic(), deadline)

    def test_there_is_nothing_of_it_without_the_option(self):
        self.write("program.py", FORKED + "    print(zygote(), [name for name in os.environ if 'WARM' in name])")
        for options, how in (["--above", "1"], "in-place"), (["--warm", "--preload", "json"], "off"):
            done, reasons = self.shell("$PYTHON program.py; $PYTHON program.py", *options, COWSHED=how)
            self.assertEqual((done.stdout, reasons), ("0 []\n" * 2, []))


class WarmFiguresTest(Runner):
    def test_eight_programs_share_their_imports(self):
        modules = ("pandas,django,asyncio,email,xml.dom.minidom,unittest.mock,sqlite3,http.client,django.db,django.forms,"
                   "django.template")
        self.write("program.py", f"""
            import sys, {modules}
            frame = pandas.DataFrame({{"a": range(1000), "b": [str(number) for number in range(1000)]}})
            print(frame.groupby("b").sum().a.sum(), flush=True)
            sys.stdin.read()
            sys.exit(7)""")
        self.write("eight.py", """
            import os, subprocess, sys, time
            programs, times = [], []
            for _ in range(8):
                begun = time.monotonic()
                programs.append(subprocess.Popen([sys.executable, "program.py"], stdin=-1, stdout=-1))
                programs[-1].stdout.readline()
                times.append(time.monotonic() - begun)
            memory = 0
            for pid in {*filter(str.isdigit, os.listdir("/proc"))} - {str(os.getpid())}:
                try:
                    with open(f"/proc/{pid}/environ", "rb") as file: is_ours = b"EIGHT=" + os.environb[b"EIGHT"] in file.read()
                    with open(f"/proc/{pid}/smaps_rollup") as file:
                        memory += is_ours * sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
                except OSError: pass
            for each in programs: each.stdin.close()
            assert {each.wait() for each in programs} == {7}
            print(sorted(times)[4], memory >> 10)""")
        command = [sys.executable, "-S", "eight.py"]
        (time_before, before), (time_now, now) = (
            map(float, self.run_it(command, options, EIGHT=f"{self.folder}{options}").stdout.split())
            for options in (None, ["--warm", "--preload", modules]))
        print(f"eight programs: start {time_now:.2f} s, plain {time_before:.2f}; all memory {now:.0f} MiB, plain {before:.0f}")
        self.assertLess(now, before / 4)
        self.assertLess(time_now, time_before / 10)

    def test_a_start_that_is_not_forked_takes_at_most_3_ms_more(self):
        self.write("many.py", """
            import resource, subprocess, sys
            for _ in range(50): subprocess.run([sys.executable, "-X", "utf8", "-c", ""])
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            print((used.ru_utime + used.ru_stime) * 20)""")
        plain, ours = (float(self.run_it([sys.executable, "-I", "many.py"], options, PYTHONDONTWRITEBYTECODE="").stdout)
                       for options in ([], ["--warm", "--preload", "json"]))
        print(f"a start takes {ours:.1f} ms of CPU time, without --warm {plain:.1f}")
        self.assertLess(ours, plain + 3)


if __name__ == "__main__":
    unittest.main()
