"""uwsgi --master --processes 2 --skip-atexit --http-socket :8000 --wsgi-file uwsgi_app.py

The master loads this file and forks, unless it is told --lazy-apps.  PLAIN=1 in the environment leaves the freeze
out."""

import os

from wsgi_app import application  # noqa: F401

if not os.environ.get("PLAIN"):
    import cowshed.uwsgi  # noqa: F401
