"""joblib's pool of multiprocessing: joblib_pool.py [plain]"""

import sys

import joblib

import catalogue

if __name__ == "__main__":
    if "plain" not in sys.argv:
        import cowshed
        print(cowshed.freeze())
    with joblib.parallel_config("multiprocessing", n_jobs=2):
        print(joblib.Parallel()(joblib.delayed(catalogue.total)(number) for number in range(4)))
