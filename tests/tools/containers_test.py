#!/usr/bin/env python3
"""Runs the rows of docs/how-to/containers.md in containers of podman, and the manifest of
docs/how-to/kubernetes.md as a pod.  As root, after ./tools/release:  /usr/bin/python3 containers_test.py [NAME...]"""

import contextlib
import glob
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

SOURCES = pathlib.Path(__file__).resolve().parents[2]
MANIFEST = SOURCES / "tools/cowtop/install/kubernetes/cowtop.yaml"
CAPABILITIES = ["--cap-drop", "all", "--cap-add", "BPF", "--cap-add", "PERFMON"]
OF_OTHERS = ["--cap-add", "SYS_PTRACE", "--cap-add", "DAC_READ_SEARCH"]
CLOSED = ["--network", "none", "--read-only"]  # what the image promises to run with
# A pool that begins when it reads a line, so that cowtop has attached before.
POOL = ["python3", "-c", "import runpy; input(); runpy.run_path('/pool.py', run_name='__main__')"]
POOL_FILE = ["-v", f"{SOURCES}/docs/examples/pool.py:/pool.py:ro"]


def output(*command, **more):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def cgroup_of(pid):
    return re.search("^0::(.*)$", pathlib.Path(f"/proc/{pid}/cgroup").read_text(), re.M)[1]


def setUpModule():
    """A store of images of our own, with the image of cowtop and one of Debian with Python."""
    global folder, cowtop, profile
    folder = pathlib.Path(tempfile.mkdtemp(prefix="containers.", dir="/var/tmp"))
    unittest.addModuleCleanup(shutil.rmtree, folder)
    (folder / "containers.conf").write_text(
        # A machine with cgroup v1 has no other way; this one's limits may be lower than podman's own.
        '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nruntime = "runc"\nevents_logger = "file"\n')
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/storage"\nrunroot = "{folder}/run"\n')
    os.environ.update(CONTAINERS_CONF=f"{folder}/containers.conf", CONTAINERS_STORAGE_CONF=f"{folder}/storage.conf")
    unittest.addModuleCleanup(output, "podman", "rmi", "-fa")
    [archive] = glob.glob(f"{SOURCES}/build/release-files/cowtop-*-x86_64.tar.gz")
    version = re.search("cowtop-(.*)-x86_64", archive)[1]
    with open(archive, "rb") as stream:
        output("podman", "build", "-q", "-t", "cowtop", "-f", f"cowtop-{version}/share/cowtop/Containerfile", "-",
               stdin=stream)
    output("tar", "-xf", archive, "-C", folder)
    cowtop = f"{folder}/cowtop-{version}/bin/cowtop"
    install = "apt-get update -q && apt-get install -y -q --no-install-recommends python3"
    with subprocess.Popen(
            [SOURCES / "tools/debian_root", "bookworm", "sh", "-c",
             f"{{ {install}; }} >&2 && tar -C / --one-file-system -c ."],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as root:
        output("podman", "import", "-q", "--change", "ENV=PATH=/usr/bin:/bin", "-", "debian", stdin=root.stdout)
    if root.returncode != 0:
        raise AssertionError("tools/debian_root failed")
    # As the page makes it.
    profile = folder / "profile.json"
    profile.write_text(output(
        "jq", '.syscalls[].names -= ["bpf"] | .syscalls += [{names: ["bpf"], action: "SCMP_ACT_ALLOW"}]',
        "/usr/share/containers/seccomp.json"))


def manifest():
    """The DaemonSet, as kubectl's own types have read it: they drop a field that they do not know."""
    done = subprocess.run(
        ["kubectl", "set", "image", "--local", "-o", "json", "cowtop=other", "-f",
         MANIFEST], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return json.loads(done.stdout)  # its status is that of the Namespace, which has no image


def allowing_bpf():
    return ["--security-opt", f"seccomp={profile}"]


class ContainersTest(unittest.TestCase):
    @contextlib.contextmanager
    def running(self, *command):
        """A process whose input, output and errors are pipes, with what it has printed so far in `errors`."""
        with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            def said():
                errors.seek(0)
                return errors.read()
            process.said = said
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
                try:
                    process.wait(60)
                finally:
                    process.kill()

    def wait_for(self, what, seconds=60):
        deadline = time.monotonic() + seconds
        while not (found := what()):
            self.assertLess(time.monotonic(), deadline, "waited too long")
            time.sleep(0.1)
        return found

    @contextlib.contextmanager
    def pool(self, *options):
        """A container with a pool that waits for a line: its process here, ID and first PID."""
        with self.running("podman", "run", "--rm", "-i", "--name", "pool", "--network", "none", *POOL_FILE, *options,
                          "debian", *POOL) as process:
            def of_pool(field):
                done = subprocess.run(["podman", "inspect", "-f", field, "pool"], stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, text=True, check=False)
                return done.stdout.strip() if done.returncode == 0 else None
            self.wait_for(lambda: of_pool("{{.State.Running}}") == "true")
            yield process, of_pool("{{.Id}}"), of_pool("{{.State.Pid}}")

    def report_of(self, pool, *command):
        """What cowtop, run by this command, reports as JSON of a pool that begins once it has attached."""
        with self.running(*command) as process:
            self.wait_for(lambda: "attached to" in process.said() or process.poll() is not None)
            self.assertIn("attached to", process.said())
            pool.communicate("begin\n", timeout=100)
            if "-p" not in command:  # else it ends with the pool
                process.send_signal(signal.SIGINT)  # podman passes it on
            out = process.communicate(timeout=60)[0]
            self.assertEqual(process.returncode, 0, process.said())
        return json.loads(out)

    def must_be_exact(self, report, container=None, pod=None):
        """Four workers that copied, their container, and the type and line."""
        self.assertTrue(report["exact"], report["backend"])
        workers = [each for each in report["processes"] if each["role"] == "child" and each["comm"] == "python3"
                   and (each["copied_bytes"] or 0) > 40 << 20]
        self.assertEqual(len(workers), 4, report["processes"])
        if container:
            self.assertEqual({each["container"] for each in workers}, {container[:12]})
        if pod:
            self.assertEqual({each["pod"] for each in workers}, {pod[:12]})
        self.assertEqual(report["types"][0]["name"], "str")
        self.assertEqual(report["sites"][0]["frames"][0]["function"], "total")

    def test_the_image_has_cowtop_and_licences_alone(self):
        self.assertIn("cowtop ", output("podman", "run", "--rm", *CLOSED, "cowtop", "--version"))
        size = int(output("podman", "inspect", "-f", "{{.Size}}", "cowtop"))
        self.assertLess(size, 15 << 20)

    def test_from_the_host(self):
        for select in (lambda id, pid: ["-p", pid], lambda id, pid: ["--cgroup", id[:12]],
                       lambda id, pid: ["--cgroup", cgroup_of(pid)]):
            with self.pool() as (pool, id, pid), self.subTest(select=select(id, pid)):
                self.must_be_exact(self.report_of(pool, cowtop, "--json", *select(id, pid)), id)

    def in_the_workload(self, *options, arguments=("-u", "nobody")):
        done = subprocess.run(
            ["podman", "run", "--rm", "--network", "none", *POOL_FILE, "-v", f"{cowtop}:/usr/bin/cowtop:ro", *options,
             "debian", "cowtop", "--json", *arguments, "--", "python3", "/pool.py"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout), done.stderr

    def test_in_the_workloads_container(self):
        for user in ([], ["--user", "1000"]):
            with self.subTest(user=user):
                report, said = self.in_the_workload(*CAPABILITIES, *allowing_bpf(), *user, arguments=())
                self.assertEqual(said, "")
                self.must_be_exact(report)

    def test_in_the_workloads_container_of_another_user(self):
        may_change_user = ["--cap-add", "SETUID", "--cap-add", "SETGID"]
        for more in [], OF_OTHERS:
            with self.subTest(more=more):
                report, _ = self.in_the_workload(*CAPABILITIES, *may_change_user, *more, *allowing_bpf())
                self.must_be_exact(report)
                self.assertEqual({each["unreadable"] for each in report["processes"]}, {not more})

    def test_in_a_container_of_its_own(self):
        [spec] = manifest()["spec"]["template"]["spec"]["containers"]
        given = spec["securityContext"]["capabilities"]
        self.assertEqual(given["drop"], ["ALL"])
        rights = ["--cap-drop", "all", *(word for each in given["add"] for word in ("--cap-add", each))]
        for select, mount in (
                (lambda id, pid: ["-p", pid], []), (lambda id, pid: ["--cgroup", id], []),
                (lambda id, pid: ["--cgroup", id[:12]], ["--cgroupns=private"]),
                (lambda id, pid: ["--cgroup", cgroup_of(pid)],
                 ["-v", "/sys/fs/cgroup:/sys/fs/cgroup:ro"])):
            with self.pool("--user", "1000") as (pool, id, pid), self.subTest(select=select(id, pid), mount=mount):
                report = self.report_of(
                    pool, "podman", "run", "--rm", "--pid=host", *CLOSED, *rights, *allowing_bpf(), *mount,
                    "cowtop", "--json", *select(id, pid))
                self.must_be_exact(report, id)
                self.assertEqual({each["unreadable"] for each in report["processes"]}, {False})

    def test_the_live_view_knows_the_terminal(self):
        ours, theirs = os.openpty()
        shown, asked = b"", False
        with self.pool() as (pool, id, _), subprocess.Popen(
                ["podman", "run", "--rm", "-it", "--pid=host", *CLOSED, *CAPABILITIES, *allowing_bpf(), "cowtop",
                 "--cgroup", id], stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            with contextlib.suppress(OSError):  # EIO: the other end is closed
                while piece := os.read(ours, 4096):
                    shown += piece
                    if b"python3" in shown and not asked:
                        asked = os.write(ours, b"q")
            os.close(ours)
            self.assertEqual(process.wait(60), 0, shown)
        self.assertIn(b"\x1b[?1049h", shown)  # the other screen of xterm
        self.assertIn(b"Exact (eBPF)", shown)

    def test_without_any_capability(self):
        report, said = self.in_the_workload("--cap-drop", "all", "--user", "1000", arguments=())
        self.assertFalse(report["exact"])
        self.assertIn("CAP_BPF and CAP_PERFMON missing", said)
        self.assertTrue(any((each["copied_bytes"] or 0) > 10 << 20 for each in report["processes"]))

    def test_a_profile_that_refuses_bpf_is_named_with_the_remedy(self):
        refusing = folder / "refusing.json"
        refusing.write_text(output("jq", '.syscalls[].names -= ["bpf"] | .syscalls += '
                                   '[{names: ["bpf"], action: "SCMP_ACT_ERRNO", errnoRet: 1}]', profile))
        run = ["podman", "run", "--rm", *CLOSED, *CAPABILITIES]
        said = output(*run, "--security-opt", f"seccomp={refusing}", "cowtop", "doctor")
        for text in ("bpf(2) is refused", "--security-opt seccomp=FILE", "Kubernetes: securityContext",
                     "cowtop uses the pagemap"):
            self.assertIn(text, said)
        self.assertNotIn("missing", said)
        if 'VERSION_ID="12"' in pathlib.Path("/etc/os-release").read_text():
            self.assertEqual(said, output(*run, "cowtop", "doctor"))

    @contextlib.contextmanager
    def pod(self, name, spec):
        (folder / "seccomp").mkdir(exist_ok=True)
        shutil.copy(profile, folder / "seccomp")
        # podman 4.3 takes profiles from annotations alone.
        annotations = {f"container.seccomp.security.alpha.kubernetes.io/{each['name']}": "localhost/profile.json"
                       for each in spec["containers"] if each["image"].endswith("/cowtop")}
        file = folder / f"{name}.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod",
                                    "metadata": {"name": name, "annotations": annotations}, "spec": spec}))
        try:
            output("podman", "kube", "play", "--network", "none", "--seccomp-profile-root", folder / "seccomp", file)
            yield output("podman", "pod", "inspect", "-f", "{{.Id}}", name).strip()
        finally:
            output("podman", "pod", "rm", "-f", "-t", "0", name)

    def metrics_of(self, container):
        pid = output("podman", "inspect", "-f", "{{.State.Pid}}", container).strip()
        return output("nsenter", "-n", "-t", pid, "curl", "-s", "--retry", "20", "--retry-connrefused",
                      "http://127.0.0.1:9417/metrics")

    def test_a_sidecar_in_a_pod(self):
        app = {"name": "app", "image": "localhost/debian", "imagePullPolicy": "Never",
               "command": ["python3", "-c", "import time, runpy\n"
                           "while True: runpy.run_path('/pool.py', run_name='__main__'); time.sleep(1)"],
               "volumeMounts": [{"name": "pool", "mountPath": "/pool.py", "readOnly": True}]}
        sidecar = {"name": "cowtop", "image": "localhost/cowtop", "imagePullPolicy": "Never",
                   "args": ["serve", "--listen", "0.0.0.0:9417"],
                   "securityContext": {"capabilities": {"add": ["BPF", "PERFMON", "SYS_PTRACE"]}}}
        volume = {"name": "pool", "hostPath": {"path": f"{SOURCES}/docs/examples/pool.py", "type": "File"}}
        with self.pod("web", {"shareProcessNamespace": True, "containers": [app, sidecar], "volumes": [volume]}) as pod:
            self.assertIn('exact="true"', self.metrics_of("web-cowtop"))
            self.wait_for(lambda: re.search('^cowshed_copied_bytes_total{comm="python3",.*} [1-9]',
                                            self.metrics_of("web-cowtop"), re.M))
            container = output("podman", "inspect", "-f", "{{.Id}}", "web-app").strip()
            with self.running(cowtop, "--json", "--cgroup", pod) as process:
                self.wait_for(lambda: "attached to" in process.said())
                time.sleep(5)
                process.send_signal(signal.SIGINT)
                report = json.loads(process.communicate(timeout=60)[0])
            self.assertEqual({each["pod"] for each in report["processes"]}, {pod[:12]})
            self.assertIn((container[:12], "python3"),
                          {(each["container"], each["comm"]) for each in report["processes"]})

    def test_the_pod_of_the_manifest(self):
        as_written = json.loads(output("jq", "-s", ".[1]", input=output(
            "kubectl", "label", "--local", "-o", "json", "-f", MANIFEST, "tested=yes")))

        def must_know(written, read, where):
            if isinstance(written, dict):
                for key, value in written.items():
                    self.assertIn(key, read, f"{where}: kubectl does not know it")
                    must_know(value, read[key], f"{where}.{key}")
            elif isinstance(written, list):
                for number, value in enumerate(written):
                    must_know(value, read[number], f"{where}[{number}]")

        daemon_set = manifest()
        must_know(as_written["spec"], daemon_set["spec"], "spec")
        spec = daemon_set["spec"]["template"]["spec"]
        self.assertTrue(spec["hostPID"])
        [container] = spec["containers"]
        container["image"] = "localhost/cowtop"
        del container["ports"]  # without a network podman can publish none
        with self.pod("node", spec):
            self.assertIn('exact="true"', self.metrics_of("node-cowtop"))
            state = json.loads(output("podman", "inspect", "node-cowtop"))[0]
            self.assertEqual(set(state["EffectiveCaps"]),
                             {"CAP_" + name for name in container["securityContext"]["capabilities"]["add"]})
            self.assertTrue(state["HostConfig"]["ReadonlyRootfs"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
