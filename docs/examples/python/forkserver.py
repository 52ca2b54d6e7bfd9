"""multiprocessing by a forkserver that has loaded the data: forkserver.py [plain]"""

import multiprocessing
import sys

import catalogue

if __name__ == "__main__":
    if "plain" in sys.argv:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["catalogue"])
    else:
        import cowshed
        context = cowshed.get_context(["catalogue"], warm_up="catalogue:total")
    with context.Pool(2) as pool:
        print(pool.map(catalogue.total, range(4)))
