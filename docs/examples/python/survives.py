"""A pool that survives the death of its workers: survives.py"""

import concurrent.futures
import os
import pathlib
import signal
import sys
import tempfile
from concurrent.futures.process import BrokenProcessPool

import catalogue


def total(number, deadly):
    if number == 3 and deadly.exists():
        deadly.unlink()
        os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory is short
    return catalogue.total(number)


def survive(context, function, jobs, *arguments, attempts=3):
    """The results by job.  A worker's death fails all jobs that are not done: they run again in new workers."""
    done = {}
    while len(done) < len(jobs):
        with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
            try:
                running = {job: executor.submit(function, job, *arguments) for job in jobs if job not in done}
                for job, future in running.items():
                    done[job] = future.result()
            except BrokenProcessPool as error:
                attempts -= 1
                if not attempts:
                    raise
                print(error, file=sys.stderr)
    return done


if __name__ == "__main__":
    import cowshed
    context = cowshed.get_context(["catalogue"], warm_up="catalogue:total")
    with tempfile.NamedTemporaryFile(delete=False) as file:
        print(*survive(context, total, range(8), pathlib.Path(file.name)).values())
