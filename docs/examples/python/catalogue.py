"""The data of the examples, and a job that reads it."""

CATALOGUE = [{"id": i, "name": f"product {i}", "price": i / 4} for i in range(300_000)]


def total(number=0):
    return sum(product["price"] for product in CATALOGUE)
