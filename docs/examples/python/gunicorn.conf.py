"""gunicorn -c gunicorn.conf.py wsgi_app:application.  PLAIN=1 in the environment leaves the freeze out."""

import os

preload_app = True
workers = 2

if not os.environ.get("PLAIN"):
    import cowshed

    def when_ready(server):
        server.log.info("%s", cowshed.freeze())

    def worker_exit(server, worker):
        cowshed.end_process()
