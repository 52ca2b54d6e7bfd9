"""A Django application with MIB of data; each request reads a part of it."""

import logging
import os
import random

import django
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse, JsonResponse
from django.template import Context, Engine
from django.urls import path, re_path

settings.configure(DEBUG=False, ALLOWED_HOSTS=["*"], SECRET_KEY="none", ROOT_URLCONF=__name__, LOGGING_CONFIG=None,
                   USE_TZ=True, INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
                   MIDDLEWARE=["django.middleware.common.CommonMiddleware", "django.middleware.gzip.GZipMiddleware"])
django.setup()
import django.contrib.auth.models, django.forms, django.db.models.functions, django.core.mail, django.test  # noqa: E401,E402

logging.basicConfig(filename=os.environ.get("SHOP_LOG"), level=logging.INFO, format="%(message)s")
logging.info("loading")


class Product:
    def __init__(self, number):
        self.number, self.name = number, f"product {number}"
        self.tags = [f"tag {number % 97}", f"own {number}"]
        self.price = {"net": number * 0.25, "tax": 0.19, "currency": "EUR" if number % 2 else "größer"}


COUNT = int(float(os.environ.get("MIB", "250")) * 1300)
PRODUCTS = [Product(number) for number in range(COUNT)]
BY_NAME = {product.name: product for product in PRODUCTS}
TEMPLATE = Engine().from_string("{% for p in products %}{{ p.number }} {{ p.name }} {{ p.price.net }}\n{% endfor %}")


def index(request, seed):
    """Looks up and renders 1/256 of the products, at random places."""
    draw = random.Random(int(seed))
    found = [BY_NAME[f"product {draw.randrange(COUNT)}"] for _ in range(COUNT // 256)]
    total = sum(p.price["net"] + len(p.tags) for p in found)
    return JsonResponse({"total": total, "some": [p.name for p in found[:10]]})


def page(request, seed):
    begin = int(seed) * 7919 % max(1, COUNT - 200)
    return HttpResponse(TEMPLATE.render(Context({"products": PRODUCTS[begin:begin + 200]})))


def ping(request):
    return HttpResponse("pong")


urlpatterns = [re_path(r"^index/(\d+)$", index), re_path(r"^page/(\d+)$", page), path("ping", ping)]
application = WSGIHandler()


def warm_up():
    from django.test import RequestFactory
    for url in ("/index/1", "/page/1", "/ping") * 20:
        environ = RequestFactory().get(url).environ
        b"".join(application(environ, lambda *_: None))
