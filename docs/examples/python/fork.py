"""multiprocessing by fork: fork.py [plain]"""

import multiprocessing
import sys

import catalogue

if __name__ == "__main__":
    if "plain" not in sys.argv:
        import cowshed
        print(cowshed.freeze())
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print(pool.map(catalogue.total, range(4)))
