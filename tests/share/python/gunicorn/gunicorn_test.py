"""Tests gunicorn with a Django application: by plain fork, with gc.freeze(), cowshed.freeze(), also settled, and
cowshed run."""

import concurrent.futures
import hashlib
import http.client
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import unittest

FOLDER = pathlib.Path(__file__).resolve().parent


def rollup(pid):
    try:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}


def children(pid):
    try:
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def has_memory(pid):
    try:
        return not pathlib.Path(f"/proc/{pid}/statm").read_text().startswith("0 ")
    except OSError:
        return False


def pss(master):
    """Of all processes; 0 if one ended meanwhile, since others that are read later then have its part as well."""
    processes = [master, *children(master)]
    total = sum(rollup(pid).get("Pss", 0) for pid in processes)
    return total if all(map(has_memory, processes)) else 0


def get(port, url):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", url)
    body = connection.getresponse().read()
    connection.close()
    return url, hashlib.sha256(body).hexdigest()


WORKERS = int(os.environ.get("WORKERS", "16"))


def start(mode, log):
    """A server and its port, when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    name, _, settled = mode.partition(", ")
    environment = {**os.environ, "MODE": name, "SHOP_LOG": str(log), "PYTHONHASHSEED": "0"}
    if settled:
        environment["COWSHED_SETTLE"] = "1"
    run = ["-m", "cowshed", "run", "--", sys.executable] if name == "cowshed run" else []
    server = subprocess.Popen([sys.executable, *run, "-m", "gunicorn", "-c", FOLDER / "gunicorn.conf.py", "--chdir",
                               FOLDER, "-b", f"127.0.0.1:{port}", "--graceful-timeout", "60",
                               "shop:application"], env=environment, stderr=subprocess.PIPE, text=True)
    while len(children(server.pid)) < WORKERS:
        if server.poll() is not None:
            sys.exit(server.stderr.read())
        time.sleep(0.05)
    get(port, "/ping")
    return server, port


def measure(mode):
    """Each of 1000 requests reads 1/256 of the data at random places."""
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder, "shop.log")
        server, port = start(mode, log)
        is_settled = "cowshed-settled" in pathlib.Path(f"/proc/{server.pid}/maps").read_text()
        master_before = rollup(server.pid)["Rss"]
        urls = [f"/{'index' if i % 4 else 'page'}/{i}" for i in range(1000)]
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            answers = list(pool.map(lambda url: get(port, url), urls))
        each = [rollup(pid) for pid in children(server.pid)]
        total = pss(server.pid)
        peak = total
        server.send_signal(signal.SIGTERM)
        while server.poll() is None:
            peak = max(peak, pss(server.pid))
            time.sleep(0.005)
        lines = log.read_text().split("\n")
        return {
            "mode": mode, "settled": is_settled, "master_rss": round(master_before, 1), "pss": round(total, 1),
            "private_each": round(max(one["Private_Clean"] + one["Private_Dirty"] for one in each), 2),
            "peak_at_stop": round(peak, 1),
            "answers": hashlib.sha256(json.dumps(sorted(answers)).encode()).hexdigest()[:12],
            "exit": server.returncode,
            "log_is_whole": lines[0] == "loading" and lines.count("worker") == WORKERS == lines.count("end"),
            "exits": server.stderr.read().count("was sent"),
        }


class GunicornTest(unittest.TestCase):
    def test_memory_answers_and_end(self):
        of = {mode: measure(mode) for mode in ("plain", "gc.freeze", "cowshed", "cowshed, settled", "cowshed run",
                                            "cowshed run, settled")}
        for each in of.values():
            print(each)
            self.assertEqual((each["exit"], each["exits"], each["log_is_whole"]), (0, 0, True))
            self.assertEqual(each["answers"], of["plain"]["answers"])
            self.assertEqual(each["settled"], each["mode"].endswith("settled"))
            if not each["settled"]:
                self.assertGreater(each["master_rss"], 250)
        for name in ("cowshed", "cowshed run"):
            self.assertLess(abs(of[f"{name}, settled"]["pss"] / of[name]["pss"] - 1), 0.03)
        for ours in (each for name, each in of.items() if name.startswith("cowshed")):
            self.assertLess(ours["pss"], 0.3 * min(of["plain"]["pss"], of["gc.freeze"]["pss"]))
            self.assertLess(ours["private_each"], 5)
            self.assertLess(ours["peak_at_stop"], 1.2 * ours["pss"])

    def test_a_settled_server_answers_as_many_requests(self):
        """Compares pairs of short runs, in turns.  The servers start three times."""
        ratios = []
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
                servers = [start(mode, pathlib.Path(folder, mode)) for mode in ("cowshed", "cowshed, settled")]

                def seconds(port, number):
                    begin = time.perf_counter()
                    list(pool.map(lambda i: get(port, f"/index/{i}"), range(number * 100, number * 100 + 100)))
                    return time.perf_counter() - begin

                for number in range(16):
                    order = servers if number % 2 else servers[::-1]
                    took = {server.pid: seconds(port, number) for server, port in order}
                    if number >= 2:  # warm
                        ratios.append(took[servers[0][0].pid] / took[servers[1][0].pid])
                for server, _ in servers:
                    server.terminate()
                    server.communicate()
        print(f"throughput of the settled one: {statistics.median(ratios):.3f}, "
              f"quartiles {statistics.quantiles(ratios)[0]:.3f} and {statistics.quantiles(ratios)[2]:.3f}")
        self.assertGreater(statistics.median(ratios), 0.98)


if __name__ == "__main__":
    unittest.main()
