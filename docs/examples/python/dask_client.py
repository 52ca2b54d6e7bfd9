"""Dask, whose workers have the data already: dask_client.py SCHEDULER, such as tcp://10.0.0.1:8786"""

import sys

import dask.distributed
import joblib


def total(number):  # in a worker
    import catalogue  # which cowshed run --preload has loaded
    return catalogue.total(number)


if __name__ == "__main__":
    with dask.distributed.Client(sys.argv[1]) as client:
        print(client.gather(client.map(total, range(4))))
        with joblib.parallel_config("dask"):
            print(joblib.Parallel()(joblib.delayed(total)(number) for number in range(4)))
