"""Adds a worker that shares the data of a machine: dask_add_worker.py SCHEDULER HOST, such as 10.0.0.2"""

import sys

import dask.distributed


async def add_worker(dask_worker):  # in the process that forks the workers of the machine
    await dask.distributed.Nanny(dask_worker.scheduler_addr, nthreads=1)


if __name__ == "__main__":
    with dask.distributed.Client(sys.argv[1]) as client:
        there = [worker for worker in client.nthreads() if f"//{sys.argv[2]}:" in worker]
        client.run(add_worker, nanny=True, workers=there[:1])
