#!/bin/sh
# Starts the shop, visits it, and ends it: selftest.sh [OPTIONS OF GUNICORN...]
gunicorn --preload --workers 2 --bind 127.0.0.1:8000 --pid server.pid "$@" app &
./visit.py http://127.0.0.1:8000
status=$?
kill "$(cat server.pid)"
wait
exit $status
