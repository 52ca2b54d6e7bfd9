"""Freezes uWSGI's workers: ``import cowshed.uwsgi`` in the file that the master loads.

It freezes before the master forks the first worker.  Start uWSGI with ``--master`` and ``--skip-atexit``, and without
``--lazy-apps``.
"""

from cowshed.run import at_fork

at_fork.watch_c_forks(at_fork.freeze_for_workers)
