"""gunicorn -c gunicorn.conf.py wsgi_app:application.  PLAIN=1 in the environment leaves the freeze out."""

import os

workers = 2
preload_app = True

if not os.environ.get("PLAIN"):
    from cowshed.gunicorn import *  # noqa: F401, F403
