# gunicorn's configuration: workers that leave the shop's memory as they found it.
import gc
import os


def when_ready(server):  # all is loaded, and no worker is forked yet
    gc.collect()
    gc.freeze()  # the collector no longer looks at what is there now


def worker_exit(server, worker):
    os._exit(0)  # without taking all of it apart first, object by object
