"""Measures one gunicorn with the shop: measure.py MODE LOAD [REQUESTS].  Prints one JSON object.

MODE is plain, gc.freeze or cowshed; LOAD is read (each request reads 1/256 of the data at random
places) or ping (hardly any)."""

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
    begin = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", url)
    body = connection.getresponse().read()
    connection.close()
    return url, hashlib.sha256(body).hexdigest(), time.perf_counter() - begin


def measure(mode, load, requests):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = pathlib.Path(folder, "shop.log")
        environment = {**os.environ, "MODE": mode, "SHOP_LOG": str(log), "PYTHONHASHSEED": "0"}
        server = subprocess.Popen([sys.executable, "-m", "gunicorn", "-c", FOLDER / "gunicorn.conf.py", "--chdir",
                                   FOLDER, "-b", f"127.0.0.1:{port}", "--graceful-timeout", "60",
                                   "shop:application"], env=environment, stderr=subprocess.PIPE, text=True)
        workers = int(environment.get("WORKERS", "16"))
        while len(children(server.pid)) < workers:
            if server.poll() is not None:
                sys.exit(server.stderr.read())
            time.sleep(0.05)
        get(port, "/ping")
        master_before = rollup(server.pid)["Rss"]
        urls = [f"/{'index' if i % 4 else 'page'}/{i}" if load == "read" else "/ping" for i in range(requests)]
        begin = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            answers = list(pool.map(lambda url: get(port, url), urls))
        seconds = time.perf_counter() - begin
        each = [rollup(pid) for pid in children(server.pid)]
        total = pss(server.pid)
        peak = total
        server.send_signal(signal.SIGTERM)
        while server.poll() is None:
            peak = max(peak, pss(server.pid))
            time.sleep(0.005)
        lines = log.read_text().split("\n")
        latencies = sorted(answer[2] for answer in answers)
        return {
            "mode": mode, "load": load, "master_rss": round(master_before, 1), "pss": round(total, 1),
            "private_each": round(max(one["Private_Clean"] + one["Private_Dirty"] for one in each), 2),
            "peak_at_stop": round(peak, 1), "requests_per_s": round(requests / seconds, 1),
            "p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1000, 1),
            "answers": hashlib.sha256(json.dumps(sorted(answer[:2] for answer in answers)).encode()).hexdigest()[:12],
            "exit": server.returncode,
            "log_is_whole": lines[0] == "loading" and lines.count("worker") == workers == lines.count("end"),
            "exits": server.stderr.read().count("was sent"),
        }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1000)))
