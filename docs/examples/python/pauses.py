"""How long the garbage collector stops a loop, with and without a freeze: prints the table.

Each of 300 steps makes 50,000 lists, which live for two steps, beside the data: millions of lists.  Times are
of the CPU."""

import collections
import gc
import subprocess
import sys
import time

import cowshed


def seconds(act):
    begin = time.process_time()
    act()
    return time.process_time() - begin


def measure(millions, freezes):
    gc.disable()
    data = [[number] for number in range(millions * 10**6)]  # noqa: F841
    gc.enable()
    gc.collect()
    if freezes:
        cowshed.freeze()
    pause = seconds(gc.collect)
    requests = collections.deque(maxlen=2)
    steps = sorted(seconds(lambda: requests.append([[each] for each in range(50_000)])) for _ in range(300))
    return [pause, steps[150], steps[297], steps[-1]]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(*(f"{1000 * each:,.0f} ms" for each in measure(int(sys.argv[1]), sys.argv[2] == "frozen")), sep=" | ")
        sys.exit()
    print("| objects | | full collection | median step | p99 | longest |\n|---|---|---|---|---|---|")
    for millions in ("1", "4", "16"):
        for state in ("not frozen", "frozen"):
            row = subprocess.run([sys.executable, __file__, millions, state], stdout=subprocess.PIPE, text=True, check=True)
            print(f"| {millions} million | {state} | {row.stdout.strip()} |", flush=True)
