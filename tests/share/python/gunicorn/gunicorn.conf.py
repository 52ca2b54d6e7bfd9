import gc
import logging
import os

preload_app = True
workers = int(os.environ.get("WORKERS", "16"))
mode = os.environ["MODE"]


def when_ready(server):
    import shop
    shop.warm_up()
    if mode == "gc.freeze":
        gc.collect()
        gc.freeze()
    elif mode == "cowshed":
        import cowshed
        server.log.info("%s", cowshed.freeze())


def post_fork(server, worker):
    logging.info("worker")


def worker_exit(server, worker):
    logging.info("end")
    if mode == "cowshed":
        import cowshed
        cowshed.end_process()
