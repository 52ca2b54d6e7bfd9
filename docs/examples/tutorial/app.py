"""A shop: looks up articles in a catalogue that is loaded once, before the workers are forked."""
import json

CATALOGUE = {str(i): {"name": f"article {i}", "tags": [f"tag {i % 97}", f"tag {i % 89}"]}
             for i in range(200_000)}


def article(number):
    return CATALOGUE.get(number, {"name": "no such article", "tags": []})


def sales_report():
    return [{"day": day, "sold": [day * 7919 % 1000, day % 7]} for day in range(60_000)]


def application(environ, start_response):
    path = environ["PATH_INFO"].lstrip("/")
    body = sales_report()[:3] if path == "report" else article(path)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(body).encode() + b"\n"]
