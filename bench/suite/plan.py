"""What is run in which size, and what of the machine that needs."""
import dataclasses
import json
import math
import pathlib
import subprocess


CGROUPS = pathlib.Path("/sys/fs/cgroup")
OWN_CGROUPS = pathlib.Path("/proc/self/cgroup")


@dataclasses.dataclass(frozen=True)
class Part:
    """One run of a benchmark.  Several of one benchmark, each of other groups, make one report."""
    benchmark: str
    arguments: tuple
    gib: int = 1  # of memory, that must be free
    most_s: int = 600  # it has failed when it takes longer
    ours: tuple = ()  # (group, name) of the figures that two commits are compared by

    @property
    def tiny(self):
        return "--quick" in self.arguments


def tiny(benchmark):
    return Part(benchmark, ("--quick",))


def pairs(benchmark, count, gib=1, only=None):
    return Part(benchmark, ("--pairs", str(count), *(("--only", only) if only else ())), gib)


PLAN = {
    # For tests: so small that no time of it means anything.
    "tiny": [tiny("fork_latency"), tiny("child_read"), tiny("fill"), tiny("freeze"), tiny("deref"),
             tiny("channel"), tiny("channel_rivals"), tiny("launch"), tiny("start_methods"),
             tiny("measuring"), tiny("html_page"), tiny("own_cost"), tiny("sharing"), tiny("allocators"),
             tiny("applications")],
    "quick": [tiny("fork_latency"), tiny("child_read"), pairs("fill", 4, only="churn"),
              tiny("freeze"), pairs("deref", 64), tiny("channel"), tiny("channel_rivals"),
              tiny("launch"), pairs("start_methods", 8, only="16 MiB"), tiny("measuring"),
              tiny("html_page"), tiny("own_cost"), tiny("sharing"),
              tiny("allocators"), tiny("applications")],
    # As many pairs as come to less than 40 minutes on 2 CPUs; even, for both orders.
    "full": [pairs("fork_latency", 8, 14, "arena"), pairs("fork_latency", 2, 14, "heap"),
             pairs("child_read", 6, 10), pairs("fill", 8, 4, "fill"),
             pairs("fill", 8, 4, "churn"), pairs("freeze", 4, 17), pairs("deref", 64),
             pairs("channel", 6, 6), Part("channel_rivals", ("--pairs", "4"), 16, 1800),
             pairs("launch", 4, 6),
             pairs("start_methods", 4, 14), pairs("measuring", 6, 2, "copy"),
             pairs("measuring", 6, 2, "count"), pairs("measuring", 10, 2, "bystander"),
             pairs("measuring", 4, 2, "no faults"), pairs("measuring", 10, 2, "many mappings"),
             Part("html_page", ()), Part("own_cost", ("--pairs", "4"), most_s=1200), pairs("sharing", 2, 4),
             pairs("allocators", 4, 4), pairs("applications", 4, 5)],
}

# For two commits, in turns: some seconds each at most, of what users would notice, and that is ours:
# by (group, name), both whole and as regular expressions, for a rival's figure may have the same
# name; of a goal, whose value is compared, by ("goal", what it is about).
AGAINST = [
    Part("fork_latency", ("--quick", "--pairs", "8", "--only", "arena"), ours=(
        ("arena/objects", "empty"), ("arena/objects", r"\d+ MiB"),
        ("arena/.+", "least share in 2 MiB pages"))),
    Part("child_read", ("--quick", "--pairs", "8"), ours=(
        ("child's cost", r"arena, page faults per GiB after prefault\(\)"),
        ("child's cost", "arena, page faults per GiB"),
        ("child's cost", "arena, private memory more than empty"),
        ("child's cost", "arena, page tables per GiB more than empty"),
        ("first read", "child, first"), ("first touch", "arena, a word of each 4 KiB"))),
    Part("fill", ("--pairs", "1", "--only", "churn/small/1"), ours=tuple(
        ("churn/small/1", name) for name in ("explicit", "pmr", "scope"))),
    Part("freeze", ("--quick",), ours=(
        ("freeze/.+", "freeze"), ("freeze/.+", "freeze, 4 KiB pages"))),
    Part("deref", ("--pairs", "9"), ours=(
        ("independent", r"\*ref"), ("independent", r"try_get\(\)"), ("independent", r"get\(\)"),
        ("chained", r"\*ref chain"))),
    Part("channel", ("--pairs", "3", "--only", "turns"), ours=(
        ("turns", "general"), ("turns", "single"))),
    Part("channel_rivals", ("--pairs", "1", "--only", "rate/4 KiB"), ours=(
        ("rate/4 KiB", "channel"), ("rate/4 KiB", "channel, CPU time"))),
    Part("launch", ("--quick", "--pairs", "8"), ours=(
        ("(fork|forkserver|spawn)/.+", r"\d+ [MG]iB"),)),
    *(Part("start_methods", ("--quick", "--only", only), ours=tuple(
        ("[^/]+/(heap|huge heap|arena)/.+", name) for name in ("fork", "spawn", "forkserver")))
      for only in ("/4 MiB", "arena/workers")),
    # What is added, and not the whole copy, of which that is a tenth.  With rivals, which take most
    # of the time, one pair a run; without them as many as make it steady.
    Part("measuring", ("--pairs", "1", "--only", "copy"), ours=(
        ("copy", "cowtop adds"), ("copy", "cowtop --latency adds"))),
    Part("measuring", ("--pairs", "4", "--only", "many mappings"), ours=(
        ("many mappings", "cowtop adds"),)),
    Part("html_page", ("--quick",), ours=(("large", "shown"), ("large", "page"))),
    Part("own_cost", ("--quick", "--pairs", "1", "--only", "idle"), ours=(
        ("(live )?idle", ".+, CPU time of the start"),
        ("goal", "(live )?idle: memory of .+"))),
    Part("own_cost", ("--quick", "--only", "record"), ours=(
        ("record.+", "memory"), ("record.+", "memory at its peak"))),
    # Not how often an entry was looked up in a fixed time, of which more is not worse.
    Part("sharing", ("--quick",), ours=(
        ("(start|look-ups|look-ups, first|memory|copied pages|copied pages, long use)/.+", "arena"),)),
    Part("allocators", ("--quick",), ours=(
        ("goal", ".+: pages of the arena that a child copies"), ("(churn|fill)/.+", "arena"),
        ("late free/.+, 100 % freed", "arena"))),
    Part("applications", ("--quick",), ours=(
        ("goal", ".+/copied pages.*: of the arena"),
        (".+/(memory|copied pages|copied pages, no writes)", "arena(, channel)?"),
        ("search service/queries", "arena"), ("data loader/samples", "arena, channel"))),
]


# What that leaves out: why.
NOT_COMPARED = {
    "what rivals take": "it is not ours",
    "gigabytes, many processes and threads, and how cost grows with them; of fill all but churn, of "
    "freeze the audit, of channel all but turns, of channel_rivals all but the rate of 4 KiB, of "
    "start_methods all but 4 MiB and an arena's workers, of measuring all but copies, of own_cost its "
    "share of a CPU and an hour's growth, of applications most times": "that takes minutes",
}


def benchmarks():
    return [part.benchmark for part in PLAN["tiny"]]


def cgroup_headroom():
    """Bytes that the memory cgroups of this process leave it, what can be dropped included; infinite
    where there is no limit."""
    least = math.inf
    for line in OWN_CGROUPS.read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, most, now, prefix = CGROUPS, "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):
            root, prefix = CGROUPS / "memory", "total_"
            most, now = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        for each in (group, *group.parents):
            if not each.is_relative_to(root) or not (each / most).exists():
                continue
            limit = (each / most).read_text(encoding="ascii").strip()
            if limit == "max":
                continue
            fields = dict(row.split() for row in (each / "memory.stat").read_text("ascii").splitlines())
            dropped = sum(int(fields.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
            used = int((each / now).read_text(encoding="ascii"))
            least = min(least, int(limit) - used + dropped)
    return least


def why_not(part, build):
    """Why the part cannot run on this machine, or None."""
    if part.benchmark in ("measuring", "own_cost"):
        cowtop = build / "tools/cowtop"
        try:
            answer = subprocess.run([cowtop, "doctor", "--json"], capture_output=True,
                                    check=False).stdout
            works = {row["backend"]: row["works"] for row in json.loads(answer)["backends"]}
        except (OSError, ValueError, LookupError):
            return f"{cowtop} is missing, or its `doctor --json` gives no answer"
        if not works.get("tracepoint"):
            return "cowtop's exact backend does not work here, as `cowtop doctor` says"
    if part.benchmark == "html_page" and not pathlib.Path("/usr/bin/chromedriver").exists():
        return "there is no /usr/bin/chromedriver"
    with open("/proc/meminfo", encoding="ascii") as file:
        free = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable")) / 2**20
    free = min(free, cgroup_headroom() / 2**30)
    if free < part.gib:
        return f"it takes {part.gib} GiB of memory, of which {free:.1f} are free"
    return None
