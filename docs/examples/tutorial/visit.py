#!/usr/bin/python3
"""Asks a shop for articles and reports, as 20 visitors do, four at a time: visit.py URL"""
import concurrent.futures
import sys
import time
import urllib.error
import urllib.request


def get(path):
    for _ in range(300):
        try:
            return urllib.request.urlopen(sys.argv[1] + path).read()
        except urllib.error.HTTPError:
            raise
        except OSError:  # it has not started yet
            time.sleep(0.1)
    sys.exit("no server at " + sys.argv[1])


def visit(visitor):
    for number in range(visitor, 200_000, 60_000):
        get(f"/{number}")
    get("/report")


with concurrent.futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(visit, range(20)))
