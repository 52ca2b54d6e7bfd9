"""An application for gunicorn and uWSGI."""

import catalogue


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(catalogue.total()).encode()]
