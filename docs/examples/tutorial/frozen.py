# gunicorn's configuration: workers that leave the shop's memory as they found it.
import gc
import logging
import os
import sys


def when_ready(server):  # all is loaded, and no worker is forked yet
    gc.collect()
    gc.freeze()  # the collector no longer looks at what is there now


def worker_exit(server, worker):
    end = sys.exc_info()[1]
    if isinstance(end, SystemExit) and not end.code:  # no error that gunicorn has to know
        logging.shutdown()  # flushes; so does the next line
        sys.stdout.flush()
        os._exit(0)  # without taking all of it apart first, object by object
