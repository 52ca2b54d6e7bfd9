"""Runs docs/examples/python/dask_client.py on two machines of four workers, with `cowshed run` and without.

The machines are network namespaces.  Needs root, Python 3.12, util-linux, iproute2, and Debian's python3-distributed
and python3-joblib."""

import contextlib
import faulthandler
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import dask.distributed

EXAMPLES = pathlib.Path(__file__).resolve().parents[3] / "docs/examples/python"
sys.path.insert(0, str(EXAMPLES))
from dask_client import total

ANSWER = sum(i / 4 for i in range(300_000))
DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL"]
SCHEDULER = "tcp://10.77.0.100:8786"
JOIN_THE_NETWORK = """set -e
ip link set lo up
ip link add eth0 type veth peer name "$2" netns "$1"
nsenter --target "$1" --net ip link set "$2" master bridge up
ip address add "$3/24" dev eth0
ip link set eth0 up
shift 3
exec "$@"
"""


def namespace(process):
    with contextlib.suppress(OSError):  # it has ended
        return os.readlink(f"/proc/{process}/ns/net")


class Machine:
    def __init__(self, number, folder, command, environment):
        self.host, self.link = f"10.77.0.{number}", f"m{number}"
        self.log = pathlib.Path(folder, f"{number}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*DIES_WITH_US, "unshare", "--net", "sh", "-c", JOIN_THE_NETWORK, "sh", str(os.getpid()), self.link,
                 self.host, *command], cwd=EXAMPLES, env=environment, stdout=log, stderr=log)
        while (own := namespace(self.process.pid)) == namespace("self"):
            time.sleep(0.01)
        self.namespace = own

    def pids(self):
        return [pid for pid in filter(str.isdigit, os.listdir("/proc")) if namespace(pid) == self.namespace]

    def pss(self):
        """In MiB."""
        size = 0
        for pid in self.pids():
            with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
                size += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        return size / 1024

    def end(self):
        while self.namespace and (pids := self.pids()):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        self.process.wait()
        subprocess.run(["ip", "link", "delete", self.link], stderr=subprocess.DEVNULL)  # the kernel may take its time


class DaskTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        os.unshare(os.CLONE_NEWNET)  # of the scheduler and the clients
        for command in ("link set lo up", "link add bridge type bridge", "address add 10.77.0.100/24 dev bridge",
                        "link set bridge up"):
            subprocess.run(["ip", *command.split()], check=True)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        path = os.environ.get("PYTHONPATH")
        self.environment = {**os.environ, "TMPDIR": self.folder,
                            "PYTHONPATH": f"{EXAMPLES}{os.pathsep + path if path else ''}"}

    def start(self, stack, method, run):
        """The scheduler and two machines.  Returns a client, the machines, and what starts one more."""
        with open(os.path.join(self.folder, "scheduler.log"), "w") as log:
            scheduler = subprocess.Popen([*DIES_WITH_US, "dask", "scheduler", "--host", "10.77.0.100",
                                          "--no-dashboard"], env=self.environment, stdout=log, stderr=log)
        stack.callback(scheduler.wait)
        stack.callback(scheduler.kill)
        command = ["dask", "worker", SCHEDULER, "--nworkers", "4", "--nthreads", "1", "--no-dashboard"]
        if run:
            command = [sys.executable, "-m", "cowshed", "run", "--preload", "catalogue", "--", *command]
        environment = {**self.environment, "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": method}

        def start_machine(number):
            machine = Machine(number, self.folder, command, environment)
            stack.callback(machine.end)
            stack.push(lambda error, *_: error and print(machine.log.read_text(), file=sys.stderr))
            return machine

        machines = [start_machine(1), start_machine(2)]
        client = stack.enter_context(dask.distributed.Client(SCHEDULER, timeout=60))
        client.wait_for_workers(8, 60)
        return client, machines, start_machine

    def run_example(self, name, *arguments):
        done = subprocess.run([sys.executable, name, SCHEDULER, *arguments], cwd=EXAMPLES, timeout=60,
                              capture_output=True, text=True, env=self.environment)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def work(self, client, workers):
        """Each worker reads all data at least once."""
        client.wait_for_workers(workers, 60)
        self.assertEqual([*client.run(total, 0).values()], [ANSWER] * workers)
        self.assertEqual(set(client.gather(client.map(total, range(50), pure=False))), {ANSWER})

    def measure(self, method):
        with contextlib.ExitStack() as stack:
            client, machines, _ = self.start(stack, method, run=False)
            self.work(client, 8)
            return round(max(machine.pss() for machine in machines))

    def test_machines_load_the_data_once(self):
        plain = {method: self.measure(method) for method in ("spawn", "forkserver")}
        with contextlib.ExitStack() as stack:
            client, machines, start_machine = self.start(stack, "forkserver", run=True)
            self.assertEqual(self.run_example("dask_client.py"), f"{[ANSWER] * 4}\n" * 2)
            victim = next(iter(client.nthreads()))

            def kill_a_worker():
                os.kill(client.run(os.getpid, workers=[victim])[victim], signal.SIGKILL)
                deadline = time.monotonic() + 60
                while victim in client.nthreads() and time.monotonic() < deadline:
                    time.sleep(0.05)

            sizes, results = [], []
            for change, workers in ((lambda: None, 8), (kill_a_worker, 8),
                                    (lambda: self.run_example("dask_add_worker.py", machines[0].host), 9),
                                    (lambda: machines.append(start_machine(3)), 13)):
                results += client.map(total, range(300), pure=False)
                change()
                self.work(client, workers)
                sizes.append([round(machine.pss()) for machine in machines])
            self.assertEqual(set(client.gather(results)), {ANSWER})
            parents = client.run(os.getppid)
            self.assertNotIn(victim, parents)
            for machine in machines:
                here = [parent for worker, parent in parents.items() if f"//{machine.host}:" in worker]
                self.assertEqual(len(set(here)), 1)
                log = machine.log.read_text()
                self.assertEqual((log.count("froze "), log.count("cannot preload")), (1, 0), log)
        print(f"MiB of a machine: {plain}; of each by cowshed run: {sizes[0]}, after a worker's death {sizes[1]}, with "
              f"a ninth worker {sizes[2]}, with a third machine {sizes[3]}")
        self.assertLess(max(sizes[0]), min(plain.values()) / 2)
        self.assertLess(max(map(max, sizes)), 1.2 * min(sizes[0]))


if __name__ == "__main__":
    faulthandler.dump_traceback_later(600, exit=True)
    unittest.main()
