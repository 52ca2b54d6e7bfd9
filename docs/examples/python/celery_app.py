"""Celery's prefork pool: celery -A celery_app worker --pool prefork --concurrency 2

PLAIN=1 in the environment leaves the freeze out.  The broker is a folder, for want of a server."""

import os

import celery

import catalogue

if not os.environ.get("PLAIN"):
    import cowshed.celery  # noqa: F401

folder = os.environ.get("BROKER", "/tmp/celery_app")
app = celery.Celery("shop", broker="filesystem://")
app.conf.broker_transport_options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}


@app.task
def total():
    return catalogue.total()
