#!/usr/bin/env python3
"""That what cowtop writes as JSON is what docs/schemas says, no less and no more:
COWTOP=.../cowtop SUBJECTS=FOLDER SCHEMAS=FOLDER python3 tests/tools/recording/schemas_test.py"""

import copy
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    import jsonpatch
    import jsonschema
except ImportError:
    print("Skipped: python3-jsonschema and python3-jsonpatch are not installed")
    sys.exit(77)

COWTOP = os.environ["COWTOP"]
SUBJECTS = pathlib.Path(os.environ["SUBJECTS"])
SCHEMAS = pathlib.Path(os.environ["SCHEMAS"])
IS_ROOT = os.geteuid() == 0

# So many that most are summed.
FORKS = ["sh", "-c", "i=0; while [ $i -lt 10000 ]; do (:); i=$((i+1)); done"]
COPIES = [str(SUBJECTS / "copy_subject"), "3000", "2", "2000", "600"]
TITLED = ["bash", "-c", "exec -a 'copier: worker' " + " ".join(COPIES)]
OBJECTS = [str(SUBJECTS / "share_subject"), "objects", "600"]
DIES = ["/usr/bin/python3", "-c", "import ctypes, os\nif os.fork() == 0: ctypes.string_at(0)\nos.wait()"]
IS_KILLED = [DIES[0], "-c", "import os, time\npid = os.fork() or time.sleep(600)\nos.kill(pid, 9)\nos.wait()"]
HANDLES = [DIES[0], "-X", "faulthandler", *DIES[1:]]
PYTHON = [DIES[0], "-c", "import os\ndata = [str(i) for i in range(30000)]\nif os.fork() == 0:\n"
          "    for each in data: pass\n    kept = [bytes(4000) for each in range(1000)]\n    os._exit(0)\nos.wait()"]
COLLECTS = [DIES[0], "-c", "import gc, os\ndata = [[] for i in range(300000)]\nif os.fork() == 0:\n"
            "    gc.collect()\n    os._exit(0)\nos.wait()"]
LIBRARY = [DIES[0], "-c", "import ctypes, os, random, time, zlib\ntext = random.randbytes(2 << 20).hex().encode()\n"
           "to = ctypes.create_string_buffer(text)\nlibrary = ctypes.CDLL('libz.so.1')\nif os.fork() == 0:\n"
           "    library.uncompress(to, ctypes.byref(ctypes.c_ulong(4 << 20)), zlib.compress(text), 4 << 20)\n"
           "    time.sleep(0.5)\n    os._exit(0)\nos.wait()"]
FORKS_BESIDE_A_THREAD = [DIES[0], "-c", "import os, threading\nevent = threading.Event()\n"
                         "threading.Thread(target=event.wait).start()\nif os.fork() == 0: os._exit(0)\nos.wait()\n"
                         "os.posix_spawn('/bin/true', ['true'], {})\nos.wait()\nevent.set()"]
MAPS_A_FILE = [DIES[0], "-c", "import mmap, os, tempfile, time\nfile = tempfile.TemporaryFile()\nfile.truncate(4 << 20)\n"
               "memory = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE)\nmemory[:1 << 20] = bytes(1 << 20)\n"
               "if os.fork() == 0:\n    memory[:2 << 20] = bytes(2 << 20)\n    time.sleep(1)\n    os._exit(0)\nos.wait()"]
SITES = [str(SUBJECTS / "site_subject"), "shares", "1000"]
TRANSFERS = [str(SUBJECTS / "share_subject"), "transfers", "600"]


def validator(name, part=""):
    """Of a schema, or of a part of one."""
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    uri = (SCHEMAS / f"{name}.json").as_uri()
    resolver = jsonschema.RefResolver(uri, schema)
    return jsonschema.Draft202012Validator({"$ref": f"{uri}#{part}"}, resolver=resolver)


def properties(schema):
    """The names of all that a schema describes, with those of the objects that have them."""
    if isinstance(schema, dict):
        for name in schema.get("properties", {}):
            yield name
        for each in schema.values():
            yield from properties(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from properties(each)


def objects(value, place=()):
    """Each object in it, by its place and the names that it has, but for what a patch puts in, of
    which a line's schema does not say more.  Of those that are alike in both, the first."""
    found = {}
    if isinstance(value, dict):
        found[place, frozenset(value)] = value
        for name, each in value.items():
            if name != "value":
                found = {**objects(each, (*place, name)), **found}
    elif isinstance(value, list):
        for each in value:
            found = {**objects(each, place), **found}
    return found


class SchemasTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.seen = set()

    def cowtop(self, *words, status=0, **more):
        done = subprocess.run([COWTOP, *words], capture_output=True, text=True, **more)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout

    def measured(self, *words):
        file = self.folder / "report.json"
        self.cowtop(*words[:words.index("--")], "-o", str(file), *words[words.index("--"):])
        return json.loads(file.read_text())

    def check(self, output, schema, part=""):
        """That it fits, and would not with one field more, wherever that is."""
        valid = validator(schema, part)
        valid.validate(output)
        for each in objects(output).values():
            self.seen.update(each)
        changed = copy.deepcopy(output)
        for each in objects(changed).values():
            each["undocumented"] = 1
            self.assertFalse(valid.is_valid(changed), f"a field more in {each}")
            del each["undocumented"]

    def check_all_was_seen(self, schema, but=()):
        described = set(properties(json.loads((SCHEMAS / f"{schema}.json").read_text())))
        self.assertEqual(described - self.seen, set(but), "described, and in no output")

    def test_run(self):
        runs = [["--", *TITLED], ["--backend", "pagemap", "--", *COPIES],
                ["--", *TRANSFERS], ["--backend", "pagemap", "--", *OBJECTS]]
        many_copies = [*SITES[:2], "300000"]  # the period grows
        exact = [["-c", "5", "--", *SITES], ["--", *many_copies], ["--", *DIES], ["--", *IS_KILLED], ["--", *HANDLES], ["-c", "5", "--", *PYTHON], ["--", *COLLECTS],
                 ["-c", "5", "--", *LIBRARY], ["--", *FORKS_BESIDE_A_THREAD], ["--", *MAPS_A_FILE]]
        for words in runs + (exact if IS_ROOT else []):
            with self.subTest(words=words):
                self.check(self.measured("--json", *words), "cowshed.run-2")
        if IS_ROOT:
            self.test_run_of_what_is_attached_to()
            self.seen.update(["container", "pod"])  # of processes in a container
            self.seen.add("errno")  # of a fork that failed
            self.seen.add("waits_for_ever")  # takes 5 s
            self.seen.add("undone_bytes")  # of settled memory
            self.seen.update(["out_of_memory", "sure", "limit_bytes", "holders"])
            self.seen.update(["memory_cgroup", "peak_bytes", "oom_kills", "limit"])  # cgroup v2
            self.check_all_was_seen("cowshed.run-2")

    @unittest.skipUnless(IS_ROOT, "takes the exact backend, which sees all of them")
    def test_run_of_many(self):
        report = self.measured("--json", "--", *FORKS)
        report["processes"] = [each for each in report["processes"] if "processes" in each]
        self.assertGreater(sum(each["processes"] for each in report["processes"]), 500)
        self.check(report, "cowshed.run-2")

    def test_run_of_what_is_attached_to(self):
        lingering = [*COPIES[:-1], "5000"]  # longer than a busy machine takes to load the probes
        with subprocess.Popen(lingering, stdout=subprocess.PIPE, text=True) as subject:
            subject.stdout.readline()
            report = self.cowtop("--json", "-p", str(subject.pid))
        self.check(json.loads(report), "cowshed.run-2")

    @unittest.skipUnless(IS_ROOT, "takes root, to become somebody else")
    def test_run_of_what_may_not_be_read(self):
        copied = self.folder / "cowtop"
        shutil.copy(COWTOP, copied)
        os.chmod(self.folder, 0o755)
        done = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                               copied, "--json", "-p", "1"], capture_output=True, text=True)
        if done.returncode == 0:
            self.check(json.loads(done.stdout), "cowshed.run-2")

    def test_recording(self):
        file = self.folder / "recording"
        sites = ["-c", "5"] if IS_ROOT else []
        self.cowtop("record", "-o", str(file), *sites, "--", *COPIES[:-1], "1500")
        lines = [json.loads(line) for line in
                 subprocess.run(["zstdcat", file], check=True, capture_output=True, text=True)
                 .stdout.splitlines()]
        self.check(lines[0], "cowshed.recording-1")
        self.assertGreater(len(lines), 2)
        document = {"processes": []}
        for line in lines[1:]:
            self.check(line, "cowshed.recording-1")
            document = jsonpatch.apply_patch(document, line["patch"])
            self.check(document, "cowshed.recording-1", "/$defs/document")
        self.check_all_was_seen("cowshed.recording-1")
        self.check(json.loads(self.cowtop("report", "--json", str(file))), "cowshed.run-2")

    def test_check(self):
        before = self.folder / "before"
        self.cowtop("record", "-o", str(before), "--", *COPIES[:2], "2", "500")
        limits = ["--max-copied", "1MiB", "--max-ratio", "5%", "--baseline", str(before),
                  "--max-growth", "1%", "--object", "second=0"]
        sites = ["-c", "1"] if IS_ROOT else []
        for words in (["--", *COPIES], ["--tree", "--", *COPIES], ["--", *OBJECTS],
                      [*sites, "--", *SITES], ["--backend", "pagemap", "--", *OBJECTS]):
            with self.subTest(words=words):
                file = self.folder / "verdict.json"
                subprocess.run([COWTOP, "check", *limits, "--json", "-o", file, *words],
                               capture_output=True)
                verdict = json.loads(file.read_text())
                self.check(verdict, "cowshed.check-1")
        self.check(json.loads(self.cowtop("check", "--max-copied", "1GiB", "--json", "--", "true",
                                          status=125)), "cowshed.check-1")
        if IS_ROOT:
            self.check_all_was_seen("cowshed.check-1", but=["not_known"])

    def test_diff(self):
        names = [str(self.folder / name) for name in ("before.json", "after.json")]
        for name, copies in zip(names, ("100", "200")):
            self.cowtop("--json", "-o", name, "--", COPIES[0], "1000", "1", copies)
        self.check(json.loads(self.cowtop("diff", "--json", *names)), "cowshed.diff-1")
        self.check_all_was_seen("cowshed.diff-1")

    def test_collapse(self):
        looked = self.cowtop("collapse", "--json", "-p", f"{os.getpid()},{os.getppid()},99999999")
        self.check(json.loads(looked), "cowshed.collapse-1")
        self.check_all_was_seen("cowshed.collapse-1")

    def test_cure(self):
        thread = [DIES[0], "-c", "import threading, time\ndata = bytearray(30 << 20)\nfor i in range(3): "
                  "threading.Thread(target=time.sleep, args=[1]).start()"]
        nowhere = {**os.environ, "PYTHONPATH": "", "PATH": "/usr/sbin"}
        self.check(json.loads(self.cowtop("cure", "--json", "--", *thread)), "cowshed.cure-1")
        self.check(json.loads(self.cowtop("cure", "--json", "--", *COLLECTS, env=nowhere)), "cowshed.cure-1")
        prints = [DIES[0], "-c", thread[2] + "\nimport os\nprint('MALLOC_ARENA_MAX' in os.environ)\nopen('left', 'a')"]
        self.check(json.loads(self.cowtop("cure", "--keep-going", "--json", "--", *prints, cwd=self.folder)),
                   "cowshed.cure-1")
        self.check_all_was_seen("cowshed.cure-1", but=["remark"])


if __name__ == "__main__":
    unittest.main()
