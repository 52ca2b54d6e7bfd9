"""Forks a child for each case.  The child copies pages by one line, on objects of one type.

Writes for each child: its PID, the function and the line that copy, and the type; -: no object."""
import array
import ctypes
import functools
import os
import re
import sys
import threading

COUNT = 300_000


class Record:
    def __init__(self, number):
        self.number = number


class Reader:
    def read(self, objects):
        for _ in objects:  # HOT method
            pass


def plain(objects):
    for _ in objects:  # HOT plain
        pass


def yielding(objects):
    for each in objects:  # HOT generator
        yield each


def generator(objects):
    for _ in yielding(objects):
        pass


def thread(objects):
    def in_thread():
        for _ in objects:  # HOT thread
            pass

    worker = threading.Thread(target=in_thread)
    worker.start()
    worker.join()


def comprehension(objects):
    return len([1 for _ in objects])  # HOT comprehension


def decorated(function):
    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments)

    return wrapper


@decorated
@decorated
def decorator(objects):
    for _ in objects:  # HOT decorator
        pass


def sort_key(objects):
    def key(number):
        return objects[number] is None  # HOT sort_key

    sorted(range(len(objects)), key=key)


def mapped(objects):
    return sum(map(lambda number: objects[number] is None,  # HOT mapped
                   range(len(objects))))


def substituted(objects):
    def replaced(match):
        return "" if objects[match.start()] is None else "y"  # HOT substituted

    re.sub("x", replaced, "x" * len(objects))


def deep(objects, depth=200):
    if depth:
        deep(objects, depth - 1)
    else:
        for _ in objects:  # HOT deep
            pass


def built_in(objects):
    return objects.count(None)  # HOT built_in


def numbers(objects):
    for index in range(0, len(objects), 64):
        objects[index] = 1  # HOT numbers


class Made:
    def __init__(self, objects, index):
        self.is_none = objects[index] is None  # HOT constructor


def constructor(objects):
    for index in range(len(objects)):
        Made(objects, index)


def method(objects):
    Reader().read(objects)


async def awaited(objects):
    for _ in objects:  # HOT coroutine
        pass


def coroutine(objects):
    async def outer():
        await awaited(objects)

    try:
        outer().send(None)
    except StopIteration:
        pass


def run(case, objects):
    child = os.fork()
    if child == 0:
        case(objects)
        os._exit(0)
    os.waitpid(child, 0)
    name = case.__name__
    with open(__file__, encoding="utf-8") as source:
        line = next(number for number, text in enumerate(source, 1) if text.endswith(f"# HOT {name}\n"))
    with open(sys.argv[1], "a", encoding="utf-8") as children:
        kind = "-" if case is numbers else type(objects[0]).__name__
        print(child, name, line, kind, file=children)


def main():
    made = {
        "str": [f"value {number}" for number in range(COUNT)],
        "list": [[number] for number in range(COUNT)],
        "dict": [{number: 1} for number in range(COUNT)],
        "tuple": [(number, 1) for number in range(COUNT)],
        "float": [number / 3 for number in range(3 * COUNT)],
        "int": [number + 10**9 for number in range(3 * COUNT)],
        "Record": [Record(number) for number in range(COUNT)],
    }
    # What compiling the modules has left free would be copied, too: memory without an object.
    ctypes.CDLL(None).malloc_trim(0)
    for objects in made.values():
        run(plain, objects)
    for case in (method, generator, thread, comprehension, decorator, sort_key, mapped, substituted, deep, built_in,
                 coroutine, constructor):
        run(case, made["str"])
    run(numbers, array.array("q", range(COUNT)))
    os._exit(0)  # without the collector, which copies too


main()
