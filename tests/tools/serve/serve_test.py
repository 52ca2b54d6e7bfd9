#!/usr/bin/env python3
"""cowtop serve, scraped by a real Prometheus: COWTOP=.../cowtop RULES=.../cowtop.rules.yml
UNIT=.../cowtop.service DASHBOARD=.../cowtop.json python3 tests/tools/serve/serve_test.py
CHURN_S=600: so many seconds beside a churn of processes"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families

COWTOP = os.environ["COWTOP"]
RULES = os.environ["RULES"]
UNIT = os.environ["UNIT"]
DASHBOARD = os.environ["DASHBOARD"]
HERE = os.path.dirname(os.path.abspath(__file__))
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
PATIENCE_S = 120
SCRAPE_TIMEOUT_S = 10  # Prometheus's, unless it is set
CHURN_S = int(os.environ.get("CHURN_S", "15"))
MOST_SERIES = 10

# Prints its PID; for each line on its standard input forks a child that copies 500 pages.
SUBJECT = """
import mmap, os, sys
memory = mmap.mmap(-1, 4096 * 1000, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(1000): memory[page * 4096] = 1
print(os.getpid(), flush=True)
for line in sys.stdin:
    done, told = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(told[1])  # so that it ends with us
        for page in range(500): memory[page * 4096] = 2
        os.write(done[1], b"x")
        if "stay" in line: os.read(told[0], 1)
        os._exit(0)
    os.read(done[0], 1)
    if "stay" not in line: os.waitpid(pid, 0)
    print("done", flush=True)
"""


# Forks five workers that stay: each copies half of 64 MiB, and touches 16 MiB of its own.
FLEET = """
import mmap, os
open("/proc/self/comm", "w").write("fleet")
memory = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(memory), 4096): memory[at] = 1
for worker in range(5):
    if os.fork() == 0:
        for at in range(0, len(memory) // 2, 4096): memory[at] = 2
        own = mmap.mmap(-1, 16 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for at in range(0, len(own), 4096): own[at] = 1
        break
os.write(1, b"%d\\n" % os.getpid())  # whole, also where several write
os.read(0, 1)  # until we end
"""

# Forks children with ever new names, which copy 1 MiB.
CHURN = """
import mmap, os, select, time
memory = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(memory), 4096): memory[at] = 1
number = 0
while not select.select([0], [], [], 0.02)[0]:  # until we end
    number += 1
    if os.fork() == 0:
        open("/proc/self/comm", "w").write(f"job-{number}")
        for at in range(0, len(memory), 4096): memory[at] = 2
        time.sleep(0.2)
        os._exit(0)
    while number > 20 and os.waitpid(-1, os.WNOHANG)[0]: pass
"""


def wait_for(what, condition):
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
        time.sleep(0.2)
    raise AssertionError(f"no {what} in {PATIENCE_S} s")


def fetch(url, accept="", timeout=30):
    request = urllib.request.Request(url, headers={"Accept": accept} if accept else {})
    with urllib.request.urlopen(request, timeout=timeout) as response:
        return response.read().decode(), response.headers


def samples(text):
    """{(name, labels): value} of an exposition."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
        found[name, labels or ""] = float(value)
    return found


def total(found, name):
    return sum(value for (each, _), value in found.items() if each == name)


@contextlib.contextmanager
def process(*command, **more):
    with subprocess.Popen(command, text=True, **more) as running:
        try:
            yield running
        finally:
            running.kill()


@contextlib.contextmanager
def serving(*options, prefix=()):
    """Its URL and process."""
    with process(*prefix, COWTOP, "serve", "--listen", "127.0.0.1:0", *options,
                 stderr=subprocess.PIPE) as cowtop:
        said = ""
        for line in cowtop.stderr:
            said += line
            if found := re.search(r"(http://\S+)/metrics has", line):
                break
        else:
            raise AssertionError(said)
        url = found[1]
        wait_for("answer", lambda: answers(url))
        yield url, cowtop


def answers(url):
    try:
        return fetch(url + "/")
    except OSError:
        return None


def sampled_after(url, moment):
    """The samples, measured after that."""
    def fresh():
        found = samples(fetch(url + "/metrics")[0])
        return found["cowshed_last_sample_timestamp_seconds", ""] > moment and found
    return wait_for("sample", fresh)


@contextlib.contextmanager
def subject(*prefix):
    with process(*prefix, "/usr/bin/python3", "-c", SUBJECT, stdin=subprocess.PIPE,
                 stdout=subprocess.PIPE) as running:
        running.stdout.readline()
        yield running


@contextlib.contextmanager
def served_subject():
    """A subject, the URL and process of what measures it, and the address."""
    with subject() as running, serving("-p", str(running.pid)) as (url, cowtop):
        host, port = url.removeprefix("http://").split(":")
        yield running, url, cowtop, (host, int(port))


def status_of(url, data=None):
    """Of an answer that is an error, with its head."""
    try:
        urllib.request.urlopen(url, data=data, timeout=PATIENCE_S).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code, error.headers
    raise AssertionError(f"{url}: no error")


def ask(running, line):
    running.stdin.write(line + "\n")
    running.stdin.flush()
    assert running.stdout.readline() == "done\n"


class ExpositionTest(unittest.TestCase):
    def test_totals_are_those_of_the_json_report(self):
        with subject() as running, serving("-p", str(running.pid)) as (url, _), \
             process(COWTOP, "--json", "-p", str(running.pid), stdout=subprocess.PIPE,
                     stderr=subprocess.PIPE) as cowtop:
            while "attached to" not in cowtop.stderr.readline():
                pass
            ask(running, "and end")
            ask(running, "stay")
            found = sampled_after(url, time.time() + 0.1)
            cowtop.send_signal(signal.SIGINT)
            report = json.loads(cowtop.stdout.read())
        if not report["exact"]:
            self.skipTest("sampled: each samples by itself")
        processes = report["processes"]
        self.assertEqual(len(processes), 3)
        copied = sum(each["copied_bytes"] for each in processes)
        self.assertGreaterEqual(copied, 1000 * 4096)
        self.assertEqual(total(found, "cowshed_copied_bytes_total"), copied)
        self.assertEqual(total(found, "cowshed_processes"), 2)
        for kind, field in (("copied_anon", "copied_anon_pages"), ("reused", "reused_pages"),
                            ("zero_filled", "zero_filled_pages")):
            pages = sum(value for (name, labels), value in found.items()
                        if name == "cowshed_written_pages_total" and f'kind="{kind}"' in labels)
            self.assertEqual(pages, sum(each[field] for each in processes), kind)

    def test_is_openmetrics_where_that_is_asked_for(self):
        with subject() as running, serving("-p", str(running.pid)) as (url, _):
            text, headers = fetch(url + "/metrics", OPENMETRICS)
            self.assertTrue(headers["Content-Type"].startswith("application/openmetrics-text"))
            self.assertTrue(text.endswith("\n# EOF\n"))
            families = re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE)
            self.assertEqual(len(families), len(dict(families)), "each once")
            for name, _ in samples(text):
                family = re.sub("_(total|info|bucket|sum|count)$", "", name)
                self.assertIn(family, dict(families))
            for family, unit in re.findall(r"^# UNIT (\S+) (\w+)$", text, re.MULTILINE):
                self.assertTrue(family.endswith("_" + unit))
            parsed = {family.name: family for family in text_string_to_metric_families(text)}
            self.assertEqual(set(parsed), set(dict(families)))
            self.assertEqual(parsed["cowshed_pss_bytes"].unit, "bytes")
            text, headers = fetch(url + "/metrics")
            self.assertTrue(headers["Content-Type"].startswith("text/plain; version=0.0.4"))
            self.assertNotIn("# EOF", text)
            subprocess.run(["promtool", "check", "metrics"], input=text, text=True, check=True)

    def test_memory_does_not_grow_with_what_has_ended(self):
        loop = "while :; do for i in 1 2 3 4 5 6 7 8 9; do (:); done; sleep 0.01; done"
        with process("sh", "-c", loop) as shell, serving("-p", str(shell.pid)) as (url, _):
            def resident():
                return fetch_value(url, "process_resident_memory_bytes")
            wait_for("copies", lambda: fetch_value(url, "cowshed_copied_bytes_total") > 0)
            time.sleep(2)
            before = resident()
            started = fetch_value(url, "cowshed_copied_bytes_total")
            wait_for("some thousand processes",
                     lambda: fetch_value(url, "cowshed_copied_bytes_total") > 4 * started)
            self.assertLess(resident() - before, 2 << 20)


def fetch_value(url, name):
    return total(samples(fetch(url + "/metrics")[0]), name)


def is_closed(client):
    try:
        return client.recv(4096, socket.MSG_DONTWAIT | socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def pss_of(pids):
    """As /proc has it."""
    total_kib = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            total_kib += int(re.search(r"^Pss: +(\d+) kB", file.read(), re.MULTILINE)[1])
    return total_kib * 1024


@contextlib.contextmanager
def fleet(before=""):
    """The process, and the PIDs of it and its workers."""
    with process("/usr/bin/python3", "-c", before + FLEET, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        yield running, lambda: [int(running.stdout.readline()) for _ in range(6)]
        running.stdin.close()


@contextlib.contextmanager
def churn():
    with process("/usr/bin/python3", "-c", CHURN, stdin=subprocess.PIPE) as running:
        yield running
        running.stdin.close()


@contextlib.contextmanager
def served_fleet():
    """The URL of what measures a fleet() from its begin, and a churn()."""
    with fleet("import os; os.read(0, 1)") as (parent, read_pids), churn() as others, \
         serving("-p", f"{parent.pid},{others.pid}") as (url, _):
        parent.stdin.write("\n")
        parent.stdin.flush()
        read_pids()
        yield url


@contextlib.contextmanager
def prometheus(url):
    """One that scrapes the server each second: a function that returns the result of a query."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    api = f"http://127.0.0.1:{port}/api/v1/"

    def query(text):
        try:
            return json.loads(fetch(api + "query?query=" + urllib.parse.quote(text))[0])["data"]["result"]
        except OSError:
            return []

    query.api = api
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "prometheus.yml")
        with open(config, "w", encoding="utf-8") as file:
            json.dump({"rule_files": [RULES],
                       "scrape_configs": [{"job_name": "cowtop", "scrape_interval": "1s",
                                           "static_configs": [{"targets": [url.removeprefix("http://")]}]}]}, file)
        with open(os.path.join(folder, "log"), "w", encoding="utf-8") as log, \
             process("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data",
                     f"--web.listen-address=127.0.0.1:{port}", stderr=log):
            yield query


def value_of(result):
    return float(result[0]["value"][1]) if result else None


class MemoryTest(unittest.TestCase):
    def test_beside_a_churn_series_are_bounded_and_pss_is_right(self):
        with fleet() as (parent, read_pids), churn() as others, \
             serving("--max-series", str(MOST_SERIES), "-p", f"{parent.pid},{others.pid}") as (url, _), \
             prometheus(url) as query:
            pids = read_pids()

            def value(text):
                return value_of(query(text))
            wait_for("look at each worker", lambda: value('cowshed_pss_processes{comm="fleet"}') == 6)
            wait_for("other", lambda: value('cowshed_copied_bytes_total{comm="other"}'))
            end = time.monotonic() + CHURN_S
            while time.monotonic() < end:
                pss = value('cowshed_pss_bytes{comm="fleet"}')
                self.assertAlmostEqual(pss / pss_of(pids), 1, delta=0.03)
                time.sleep(1)
            self.assertGreater(value('cowshed_page_table_bytes{comm="fleet"}'), 6 * 32 * 4096)
            for name in ("copied_bytes_total", "processes", "pss_processes"):
                ever = value(f"count(last_over_time(cowshed_{name}[1h]))")
                self.assertEqual(ever, MOST_SERIES + 1, "with other, and not more")

    def test_erosion_is_what_workers_copied(self):
        with served_fleet() as url:
            found = wait_for("what they share", lambda: self.settled(url))
        shared = total(found, "cowshed_shared_at_fork_bytes")
        self.assertGreaterEqual(shared, 5 * 64 << 20)
        still = total(found, "cowshed_still_shared_bytes")
        self.assertAlmostEqual(still, shared - (5 * 32 << 20), delta=5 * 3 << 20)
        self.assertAlmostEqual(total(found, "cowshed_new_bytes"), 5 * 16 << 20, delta=5 * 1 << 20)

    @staticmethod
    def settled(url):
        found = {key: value for key, value in samples(fetch(url + "/metrics")[0]).items() if 'comm="fleet"' in key[1]}
        return found if total(found, "cowshed_copied_bytes_total") >= 5 * 32 << 20 and \
            total(found, "cowshed_new_bytes") >= 5 * 16 << 20 else None


class ProfileTest(unittest.TestCase):
    def test_pprof_takes_it_from_the_server(self):
        with subject() as running, serving("-p", str(running.pid)) as (url, _), \
             tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "PPROF_TMPDIR": folder}
            command = ["go", "tool", "pprof", "-raw", url + "/debug/pprof/cow?seconds=4"]
            with process(*command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as pprof:
                profile = []
                reader = threading.Thread(target=lambda: profile.append(pprof.stdout.read()))
                reader.start()
                while reader.is_alive():
                    ask(running, "and end")
                    found = sampled_after(url, time.time())
                    self.assertEqual(total(found, "cowshed_processes"), 1, "it is measured as ever")
            if ("cowshed_lost_events_total", "") not in sampled_after(url, 0):
                self.skipTest("sampled: there are no stacks")
        values = re.findall(r"^ +(\d+) +\d+ +\d+ +\d+: ", profile[0], re.MULTILINE)
        self.assertGreaterEqual(sum(map(int, values)), 500 * 4096)
        self.assertRegex(profile[0], r"process:\[python3\]")

class ServerTest(unittest.TestCase):
    def test_what_it_cannot_listen_on(self):
        with socket.create_server(("127.0.0.1", 0)) as busy:
            port = busy.getsockname()[1]
            for address, text in ((f"127.0.0.1:{port}", "Address already in use"),
                                  ("192.0.2.1:80", "Cannot assign requested address"),
                                  ("no.such.host.invalid:80", "no.such.host.invalid"),
                                  ("127.0.0.1", "is not HOST:PORT"),
                                  ("unix:/tmp/x:1", "is not HOST:PORT")):
                done = subprocess.run([COWTOP, "serve", "--listen", address],
                                      stderr=subprocess.PIPE, text=True, check=False)
                self.assertEqual(done.returncode, 125, address)
                self.assertIn(text, done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_two_do_not_share_a_port(self):
        with subject() as running, serving("-p", str(running.pid)) as (url, _):
            done = subprocess.run(
                [COWTOP, "serve", "--listen", url.removeprefix("http://"), "-p", str(running.pid)],
                stderr=subprocess.PIPE, text=True, check=False)
            self.assertEqual(done.returncode, 125)
            self.assertIn("Address already in use", done.stderr)

    def test_other_pages(self):
        with subject() as running, serving("-p", str(running.pid)) as (url, _):
            self.assertIn("/metrics", fetch(url + "/")[0])
            self.assertIn(json.loads(fetch(url + "/findings.json")[0])[0]["kind"], ("not_shared", "little", "copied"))
            self.assertEqual(status_of(url + "/nothing")[0], 404)
            code, headers = status_of(url + "/metrics", b"x")
            self.assertEqual((code, headers["Allow"]), (405, "GET, HEAD"))

    def test_waits_for_processes_that_come(self):
        with serving("--comm", "^no-such-name$") as (url, _):
            self.assertEqual(fetch_value(url, "cowshed_processes"), 0)
        with process(COWTOP, "serve", "--listen", "127.0.0.1:0", "--comm", "^no-such-name$",
                     stderr=subprocess.PIPE) as cowtop:
            for line in cowtop.stderr:
                if "no-such-name" in line:
                    break
            self.assertRegex(line, " yet$")

    def test_slow_clients_hold_up_neither_measuring_nor_the_end(self):
        with served_subject() as (running, _, cowtop, address):
            clients = [socket.create_connection(address) for _ in range(150)]
            for client in clients:
                client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
            ask(running, "and end")
            time.sleep(1)
            descriptors = len(os.listdir(f"/proc/{cowtop.pid}/fd"))
            self.assertLess(descriptors, 140)
            moment = time.time()
            cowtop.send_signal(signal.SIGTERM)
            while cowtop.poll() is None and time.time() < moment + PATIENCE_S:
                for client in clients:
                    with contextlib.suppress(OSError):
                        client.send(b"x")
                time.sleep(0.5)
            self.assertEqual(cowtop.poll(), 0)
            for client in clients:
                client.close()

    def test_slow_clients_do_not_shut_others_out(self):
        with served_subject() as (_, url, _, address), contextlib.ExitStack() as open_ones:
            clients = [open_ones.enter_context(socket.create_connection(address))
                       for _ in range(16)]
            ended = threading.Event()

            def trickle():
                for client in clients:
                    client.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
                while not ended.wait(0.5):
                    for client in clients:
                        with contextlib.suppress(OSError):
                            client.send(b"x")

            sender = threading.Thread(target=trickle)
            sender.start()
            try:
                time.sleep(1)
                self.assertEqual(fetch_value(url, "cowshed_processes"), 1)
                wait_for("cut", lambda: all(map(is_closed, clients)))
            finally:
                ended.set()
                sender.join()

    def test_idle_clients_do_not_shut_others_out(self):
        with served_subject() as (_, url, _, address), contextlib.ExitStack() as open_ones:
            for _ in range(400):
                open_ones.enter_context(socket.create_connection(address))
            moment = time.monotonic()
            self.assertIn("cowshed_processes", fetch(url + "/metrics", timeout=SCRAPE_TIMEOUT_S)[0])
            self.assertLess(time.monotonic() - moment, 2)

    def test_a_page_of_another_name_does_not_read_it(self):
        with served_subject() as (_, url, _, address):
            for name, status in (("evil.example", b"421"), ("localhost", b"200")):
                with socket.create_connection(address, PATIENCE_S) as client:
                    client.sendall(f"GET /metrics HTTP/1.1\r\nHost: {name}:{address[1]}\r\n\r\n".encode())
                    with client.makefile("rb") as answer:
                        self.assertIn(status, answer.readline())

    def test_a_connection_is_for_one_request(self):
        with served_subject() as (_, url, _, address):
            with socket.create_connection(address, PATIENCE_S) as client:
                client.sendall(b"GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n")
                with client.makefile("rb") as answer:
                    self.assertIn(b"Connection: close\r\n", answer.read())

    def test_garbage_is_no_harm(self):
        with served_subject() as (_, url, _, address):
            for garbage in (b"\0" * 1000, b"GET " + b"a" * 100_000, b"\r\n" * 1000,
                            b"POST /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\nx",
                            b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n"):
                with socket.create_connection(address) as client, \
                     contextlib.suppress(OSError):
                    client.sendall(garbage)
            self.assertGreater(fetch_value(url, "cowshed_processes"), 0)

    def test_ends_by_signal(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with subject() as running, serving("-p", str(running.pid)) as (_, cowtop):
                cowtop.send_signal(number)
                self.assertEqual(cowtop.wait(PATIENCE_S), 0)


class PrometheusTest(unittest.TestCase):
    def test_scrapes_it(self):
        with subject() as running, serving("-p", str(running.pid)) as (url, _), prometheus(url) as ask_for:
            def query(text):
                return value_of(ask_for(text))

            ask(running, "and end")
            exact = sampled_after(url, time.time() + 0.1)
            copied = total(exact, "cowshed_copied_bytes_total")
            self.assertGreaterEqual(copied, 500 * 4096)
            wait_for("the right total", lambda: query("sum(cowshed_copied_bytes_total)") == copied)
            self.assertEqual(query('up{job="cowtop"}'), 1)
            self.assertEqual(query("count(cowshed_backend_info)"), 1)
            self.assertEqual(query("sum(cowshed_processes)"), 1)
            metadata = json.loads(fetch(ask_for.api + "targets/metadata?metric=cowshed_copied_bytes")[0])
            self.assertEqual(metadata["data"][0]["unit"], "bytes", "it took OpenMetrics")

            def rules():
                return json.loads(fetch(ask_for.api + "rules")[0])["data"]["groups"][0]["rules"]
            wait_for("evaluation of the rules", lambda: all(each["health"] == "ok" for each in rules()))
            self.assertEqual(len(rules()), 7)


class DashboardTest(unittest.TestCase):
    # What each panel shows of a fleet() and a churn().
    SANE = {
        "Processes measured": lambda values: values[0] > 6,
        "Still shared of all": lambda values: 0.3 < values[0] < 0.7,
        "Copied per second": lambda values: values[0] > 1 << 20,
        "Memory (PSS)": lambda values: values[0] > 200 << 20,
        "Machines with exact counts": lambda values: values[0] == 1,
        "Erosion: still shared / shared at the fork": lambda values: any(0.4 < each < 0.6 for each in values),
        "Top copiers": lambda values: max(values) > 1 << 20 and len(values) <= 10,
        "Shared at the fork, and still shared": lambda values: len(values) == 2 and values[1] < 0.7 * values[0],
        "New memory": lambda values: any(each > 5 * 15 << 20 for each in values),
        "Memory (PSS) by command": lambda values: max(values) > 200 << 20,
        "What this machine would save": lambda values: len(values) >= 3 and values[0] > max(values[1:]),
        "Page tables": lambda values: max(values) > 6 * 32 * 4096,
        "Cost of cowtop: CPU": lambda values: len(values) == 2 and all(0 < each < 0.5 for each in values),
        "Cost of cowtop: memory": lambda values: len(values) == 1 and 1 << 20 < values[0] < 1 << 30,
    }

    def test_each_panel_shows_what_it_says(self):
        with open(DASHBOARD, encoding="utf-8") as file:
            board = json.load(file)
        panels = {panel["title"]: panel for panel in board["panels"]}
        self.assertEqual(set(panels), set(self.SANE))
        self.assertEqual(len(panels), len({panel["id"] for panel in panels.values()}))
        with served_fleet() as url, prometheus(url) as query:
            for title, panel in panels.items():
                expressions = [self.expression(target["expr"]) for target in panel["targets"]]

                def values(expressions=expressions):
                    return [float(each["value"][1]) for text in expressions for each in query(text)]
                try:
                    wait_for(title, lambda title=title, values=values: values() and self.SANE[title](values()))
                except AssertionError as error:
                    raise AssertionError(f"{error}: {expressions} is {values()}") from None

    @staticmethod
    def expression(text):
        text = text.replace("$instance", ".*").replace("$__rate_interval", "10s")
        assert "$" not in text, text
        return text


class UnitTest(unittest.TestCase):
    """cowtop.service, as far as that can be told where systemd does not run."""

    def setUp(self):
        with open(UNIT, encoding="utf-8") as file:
            self.unit = file.read()

    def test_systemd_understands_it_and_finds_it_hardened(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "cowtop.service")
            with open(path, "w", encoding="utf-8") as file:
                file.write(self.unit.replace("/usr/bin/cowtop", COWTOP).replace("man:cowtop-serve(1)", ""))
            for words in (["verify"], ["security", "--offline=yes", "--threshold=40"]):
                done = subprocess.run(["systemd-analyze", *words, path], capture_output=True, text=True)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                if words == ["verify"]:
                    self.assertEqual(done.stderr, "")

    @unittest.skipUnless(os.geteuid() == 0, "takes root, as the unit does")
    def test_its_capabilities_are_enough(self):
        given = re.search("^CapabilityBoundingSet=(.*)$", self.unit, re.MULTILINE)[1]
        kept = [name.removeprefix("CAP_").lower() for name in given.split()]
        bounds = ",".join(["-all", *("+" + name for name in kept)])
        limits = ["setpriv", "--bounding-set", bounds, "--inh-caps", "-all", "--no-new-privs"]
        with subject("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups") as other, \
             serving("-p", str(other.pid), prefix=limits) as (url, cowtop):
            with open(f"/proc/{cowtop.pid}/status", encoding="utf-8") as status:
                self.assertEqual(bin(int(re.search(r"CapEff:\s*(\w+)", status.read())[1], 16)).count("1"), len(kept))
            ask(other, "stay")
            found = sampled_after(url, time.time())
        self.assertTrue(any(name == "cowshed_backend_info" and 'exact="true"' in labels
                            for name, labels in found))
        self.assertGreater(sum(value for (name, labels), value in found.items()
                               if name == "cowshed_copied_bytes_total" and 'comm="python3"' in labels), 499 * 4096)
        self.assertTrue(any(name == "cowshed_shared_bytes" and 'comm="python3"' in labels and value > 0
                            for (name, labels), value in found.items()))


class RulesTest(unittest.TestCase):
    def judge(self, rules):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "cowtop.rules.yml"), "w", encoding="utf-8") as file:
                file.write(rules)
            tests = shutil.copy(os.path.join(HERE, "rules_test.yml"), folder)
            return subprocess.run(["promtool", "test", "rules", tests], capture_output=True, text=True, check=False)

    def test_rules_and_that_one_which_never_fires_is_found(self):
        subprocess.run(["promtool", "check", "rules", RULES], check=True, stdout=subprocess.DEVNULL)
        with open(RULES, encoding="utf-8") as file:
            rules = file.read()
        done = self.judge(rules)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertNotEqual(self.judge(rules.replace("16 * 2^20", "16 * 2^30")).returncode, 0)


if __name__ == "__main__":
    sys.exit(unittest.main())
