"""Tests gunicorn with a Django application: by plain fork, with gc.freeze(), cowshed.freeze() and cowshed run."""

import concurrent.futures
import hashlib
import http.client
import json
import os
import pathlib
import signal
import socket
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


def pss(master):
    return sum(rollup(pid).get("Pss", 0) for pid in [master, *children(master)])


def get(port, url):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", url)
    body = connection.getresponse().read()
    connection.close()
    return url, hashlib.sha256(body).hexdigest()


def measure(mode):
    """Each of 1000 requests reads 1/256 of the data at random places."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder, "shop.log")
        environment = {**os.environ, "MODE": mode, "SHOP_LOG": str(log), "PYTHONHASHSEED": "0"}
        run = ["-m", "cowshed", "run", "--", sys.executable] if mode == "cowshed run" else []
        server = subprocess.Popen([sys.executable, *run, "-m", "gunicorn", "-c", FOLDER / "gunicorn.conf.py", "--chdir",
                                   FOLDER, "-b", f"127.0.0.1:{port}", "--graceful-timeout", "60",
                                   "shop:application"], env=environment, stderr=subprocess.PIPE, text=True)
        workers = int(environment.get("WORKERS", "16"))
        while len(children(server.pid)) < workers:
            if server.poll() is not None:
                sys.exit(server.stderr.read())
            time.sleep(0.05)
        get(port, "/ping")
        master_before = rollup(server.pid)["Rss"]
        urls = [f"/{'index' if i % 4 else 'page'}/{i}" for i in range(1000)]
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
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
            "mode": mode, "master_rss": round(master_before, 1), "pss": round(total, 1),
            "private_each": round(max(one["Private_Clean"] + one["Private_Dirty"] for one in each), 2),
            "peak_at_stop": round(peak, 1),
            "answers": hashlib.sha256(json.dumps(sorted(answers)).encode()).hexdigest()[:12],
            "exit": server.returncode,
            "log_is_whole": lines[0] == "loading" and lines.count("worker") == workers == lines.count("end"),
            "exits": server.stderr.read().count("was sent"),
        }


class GunicornTest(unittest.TestCase):
    def test_memory_answers_and_end(self):
        of = {mode: measure(mode) for mode in ("plain", "gc.freeze", "cowshed", "cowshed run")}
        for each in of.values():
            print(each)
            self.assertEqual((each["exit"], each["exits"], each["log_is_whole"]), (0, 0, True))
            self.assertEqual(each["answers"], of["plain"]["answers"])
            self.assertGreater(each["master_rss"], 250)
        for ours in (of["cowshed"], of["cowshed run"]):
            self.assertLess(ours["pss"], 0.3 * min(of["plain"]["pss"], of["gc.freeze"]["pss"]))
            self.assertLess(ours["private_each"], 5)
            self.assertLess(ours["peak_at_stop"], 1.2 * ours["pss"])


if __name__ == "__main__":
    unittest.main()
