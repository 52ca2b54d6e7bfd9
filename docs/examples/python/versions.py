"""New data while workers run: versions.py FILE

FILE has lines "NAME TEXT".  Each line of standard input, such as a scheduler's, says that FILE has changed."""

import concurrent.futures
import sys

TEXTS = {}


def load():  # in the forkserver
    with open(sys.argv[1]) as file:
        for line in file:
            name, text = line.split(maxsplit=1)
            TEXTS[name] = text


def total(_):  # in a worker
    return sum(map(len, TEXTS.values()))


def main():
    import cowshed
    context = cowshed.get_context(warm_up="__main__:load")
    executor = concurrent.futures.ProcessPoolExecutor(2, mp_context=context)
    print(*executor.map(total, range(4)), flush=True)
    for _ in sys.stdin:
        try:
            context.renew()
        except cowshed.LoadFailed as error:  # the workers go on with the old data
            print(error, flush=True)
            continue
        old, executor = executor, concurrent.futures.ProcessPoolExecutor(2, mp_context=context)
        old.shutdown()  # after its last task; the old data goes with its workers
        print(*executor.map(total, range(4)), flush=True)


if __name__ == "__main__":
    main()
