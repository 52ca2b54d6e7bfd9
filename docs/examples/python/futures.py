"""concurrent.futures, by a forkserver that has loaded the data: futures.py [plain]"""

import concurrent.futures
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
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as executor:
        print(list(executor.map(catalogue.total, range(4))))
