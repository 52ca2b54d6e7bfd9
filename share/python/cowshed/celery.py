"""Freezes the workers of Celery's prefork pool: ``import cowshed.celery`` in the module of the application.

It freezes in the signal ``worker_init``, when the tasks are loaded.  Celery ends its workers by ``os._exit()``, so that
their end copies nothing.
"""

import importlib
from typing import Any

from cowshed.run import at_fork


def _freeze(**_: Any) -> None:
    at_fork.freeze_for_workers()


importlib.import_module("celery.signals").worker_init.connect(_freeze)
