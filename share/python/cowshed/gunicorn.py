"""Freezes gunicorn's workers.  In ``gunicorn.conf.py``::

    from cowshed.gunicorn import *

This loads the application in the master (``preload_app``), freezes before the first worker is forked, and has workers
end by ``cowshed.end_process()``, after your own ``worker_exit``.  Your own ``pre_fork``, below the import, does so by a
call of this one::

    import cowshed.gunicorn

    def pre_fork(server, worker):
        cowshed.gunicorn.pre_fork(server, worker)
"""

from typing import Any

from cowshed.run import at_fork, ends

__all__ = ["pre_fork", "preload_app"]

preload_app = True


def pre_fork(server: Any, worker: Any) -> None:
    """gunicorn calls it in the master before each fork."""
    if at_fork.freeze_for_workers():
        ends.shorten_workers_of(server)
