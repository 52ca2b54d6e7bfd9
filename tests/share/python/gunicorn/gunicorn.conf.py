import gc
import logging
import os

preload_app = True
workers = int(os.environ.get("WORKERS", "16"))
mode = os.environ["MODE"]
if mode == "cowshed":
    from cowshed.gunicorn import *  # noqa: F401, F403


def when_ready(server):
    import shop
    shop.warm_up()
    if mode == "gc.freeze":
        gc.collect()
        gc.freeze()


def post_fork(server, worker):
    logging.info("worker")


def worker_exit(server, worker):
    logging.info("end")
