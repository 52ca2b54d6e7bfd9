"""Kinds of reading data of a program: python -c "import readings; readings.main(MODE, METHOD, *KINDS)".

MODE: plain or cowshed.  METHOD: fork or forkserver.  READINGS_MIB of mixed data and
READINGS_WORKERS workers; each worker does all of KINDS but frames, for which pandas writes much of
its own, or those that are named.  Prints what each has for itself afterwards, in KiB."""

import bisect
import collections
import copy
import csv
import ctypes
import dataclasses
import datetime
import decimal
import enum
import gc
import hashlib
import heapq
import io
import itertools
import json
import multiprocessing
import operator
import os
import pickle
import re
import sys
import typing

try:
    import numpy
    import pandas
except ImportError:
    numpy = pandas = None


class Plain:
    def __init__(self, i):
        self.i, self.name, self.tags = i, f"plain {i}", [f"a{i}", "b"]


class Slots:
    __slots__ = ("i", "name", "next")

    def __init__(self, i):
        self.i, self.name, self.next = i, f"slots {i}", None


@dataclasses.dataclass
class Data:
    i: int
    name: str
    parts: list


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    y: float


Row = collections.namedtuple('Row', 'a b c')


class Typed(typing.NamedTuple):
    a: int
    b: str


class Color(enum.Enum):
    RED = 1
    GREEN = 2


def build(n):
    d = {}
    d['records'] = [{'id': i, 'name': 'name of %d' % i, 'score': i * 0.25, 'tags': ['t%d' % (i % 97), 'u%d' % i], 'sub': {'k%d' % (i % 13): i * 1000003}} for i in range(n)]
    d['plain'] = [Plain(i) for i in range(n // 2)]
    d['slots'] = [Slots(i) for i in range(n // 2)]
    d['datas'] = [Data(i, 'data %d' % i, [i, i + 1]) for i in range(n // 4)]
    d['points'] = [Point(i * .5, i * .25) for i in range(n // 4)]
    d['rows'] = [Row(i, 'row %d' % i, i * 1.5) for i in range(n // 2)]
    d['typed'] = [Typed(i, 'typed %d' % i) for i in range(n // 4)]
    d['names'] = {'key %d' % i: i + 100000 for i in range(n)}
    d['unicode'] = ['Zeichen äöü %d' % i for i in range(n // 2)]
    d['sets'] = [frozenset(('s%d' % i, i)) for i in range(n // 4)]
    d['set'] = {'member %d' % i for i in range(n // 2)}
    d['tuples'] = [(i, 't%d' % i, (i, str(i))) for i in range(n // 2)]
    d['bytes'] = [b'bytes %d' % i for i in range(n // 2)]
    d['dates'] = [datetime.datetime(2020, 1, 1) + datetime.timedelta(minutes=i) for i in range(n // 8)]
    d['decimals'] = [decimal.Decimal(i) / 7 for i in range(n // 8)]
    d['bytekey'] = {b'k%d' % i: i for i in range(n // 4)}
    d['tuplekey'] = {(i, 'x%d' % i): i for i in range(n // 4)}
    d['colors'] = [Color.RED if i % 2 else Color.GREEN for i in range(n // 8)]
    d['text'] = 'lorem ipsum dolor sit amet ' * n
    d['ordered'] = collections.OrderedDict(('o%d' % i, i) for i in range(n // 8))
    d['default'] = collections.defaultdict(list, {'d%d' % i: [i] for i in range(n // 8)})
    d['deque'] = collections.deque(['q%d' % i for i in range(n // 8)])
    d['counter'] = collections.Counter('c%d' % (i % 1000) for i in range(n))
    d['words'] = sorted('word%08d' % i for i in range(n // 2))
    d['zoned'] = [datetime.datetime.fromisoformat('2020-01-01T00:00:00+%02d:%02d' % (i % 24, i % 60)) for i in range(n // 8)]
    if numpy:
        d['array'] = numpy.array(['item %d' % i for i in range(n // 2)], dtype=object)
        d['structured'] = numpy.array([(i, 'item %d' % i) for i in range(n // 4)], dtype=[('i', 'i4'), ('s', 'O')])
    if pandas:
        m = n // 4
        d['frame'] = pandas.DataFrame(
            {'s%d' % k: ['cell %d of %d' % (i, k) for i in range(m)] for k in range(10)} |
            {'category': pandas.Categorical(['category %d' % (i % 50) for i in range(m)]),
             'time': pandas.date_range('2020-01-01', periods=m, freq='min'),
             'list': [['nested %d' % i, [i * 1000003]] for i in range(m)]})
    return d


def match(d):
    n = 0
    for r in d['records']:
        match r:
            case {'id': int(i), 'name': str(s)} if i % 2: n += len(s)
            case {'tags': [x, *_]}: n += len(x)
    for p in d['points']:
        match p:
            case Point(x=0.0, y=y): n += 1  # noqa: F841
            case Point(): n += 2
    return n


def kwargs(d):
    def f(id, name, score, tags, sub): return id
    return sum(f(**r) for r in d['records'])


def csv_(d):
    o = io.StringIO()
    w = csv.writer(o)
    w.writerows(d['rows'])
    return len(o.getvalue())


def arrays(d):
    return (sum(map(len, d['array'])) + sum(len(r['s']) for r in d['structured']) +
            sum(map(len, d['structured']['s'])))


def frames(d):
    frame = d['frame']
    return (sum(len(cell) for k in range(10) for cell in frame['s%d' % k]) + frame['s0'].str.len().sum() +
            sum(len(c) for c in frame['category']) + sum(t.minute for t in frame['time']) +
            sum(len(text) + len(more) for text, more in frame['list']) + len(frame.iloc[3]) +
            len(frame.groupby('category', observed=True).size()) + len(frame.sort_values('s2')))


KINDS = {
    "look_up": lambda d: sum(d['names'][k] for k in d['names']),
    "look_up_fresh_keys": lambda d: sum(d['names']['key %d' % i] for i in range(len(d['names']))),
    "iterate": lambda d: sum(r['id'] for r in d['records']),
    "items": lambda d: sum(len(v) for r in d['records'] for k, v in r.items() if k == 'tags'),
    "attributes": lambda d: sum(p.i + len(p.name) + len(p.tags) for p in d['plain']),
    "dunder_dict": lambda d: sum(len(vars(p)) for p in d['plain']),
    "slots": lambda d: sum(s.i + len(s.name) for s in d['slots']),
    "dataclass_eq": lambda d: sum(a == b for a, b in zip(d['datas'], d['datas'][1:])),
    "dataclass_asdict": lambda d: sum(len(dataclasses.asdict(x)) for x in d['datas'][::4]),
    "hash_points": lambda d: len({p for p in d['points']}),
    "unpack": lambda d: sum(a for a, b, c in d['rows']),
    "named_tuples": lambda d: (sum(r.a + len(r.b) for r in d['rows']) +
                               sum(t._asdict()['a'] for t in d['typed'][::4])),
    "json_dumps": lambda d: len(json.dumps(d['records'])),
    "pickle_dumps": lambda d: (len(pickle.dumps(d['records'])) + len(pickle.dumps(d['plain'])) +
                               len(pickle.dumps(d['unicode'])) + len(pickle.dumps(d['slots']))),
    "pickle_5": lambda d: len(pickle.dumps(d['rows'], protocol=5, buffer_callback=lambda b: None)),
    "shallow_copy": lambda d: (sum(len(copy.copy(r)) for r in d['records']) +
                               len([copy.copy(p) for p in d['plain']])),
    "deep_copy": lambda d: len(copy.deepcopy(d['records'][::8])) + len(copy.deepcopy(d['plain'][::8])),
    "regex": lambda d: (sum(bool(re.search(r'9$', r['name'])) for r in d['records']) +
                        len(re.findall('dolor', d['text']))),
    "f_strings": lambda d: sum(len(f"{r['id']:08d} {r['name']!r} {r['score']:.2f}") for r in d['records']),
    "format_": lambda d: sum(len('%s %s' % (r.a, r.b)) + len('{0.b}'.format(r)) for r in d['rows']),
    "sort": lambda d: sorted(d['records'], key=lambda r: -r['id'])[0]['id'],
    "sort_strings": lambda d: len(sorted(d['unicode'])) + len(sorted(d['names'])),
    "match": match,
    "members": lambda d: sum(('member %d' % i) in d['set'] for i in range(len(d['set']))),
    "set_algebra": lambda d: (len(d['set'] & set(d['names'])) + len(d['set'] | {'x'}) +
                              sum(len(s & {1}) for s in d['sets'])),
    "hash_frozensets": lambda d: len({s: 1 for s in d['sets']}),
    "encode": lambda d: sum(len(u.encode()) for u in d['unicode']),
    "string_methods": lambda d: sum(len(u.upper().split()) + u.startswith('Z') + u.find('ö')
                                    for u in d['unicode']),
    "join": lambda d: len(','.join(d['unicode'])) + len(''.join(sorted(d['set']))),
    "bytes_": lambda d: sum(len(b) + b.count(b'1') for b in d['bytes']) + len({b for b in d['bytes']}),
    "dates": lambda d: (len({x: 1 for x in d['dates']}) + sum(x.year for x in d['dates']) +
                        len([x.isoformat() for x in d['dates']])),
    "decimals": lambda d: len({x: 1 for x in d['decimals']}) + float(sum(d['decimals'])),
    "tuple_keys": lambda d: (sum(d['tuplekey'][(i, 'x%d' % i)] for i in range(len(d['tuplekey']))) +
                             len({k: 1 for k in d['tuplekey']})),
    "tuple_hash": lambda d: len({t for t in d['tuples']}) + len({r for r in d['rows']}),
    "enums": lambda d: collections.Counter(d['colors'])[Color.RED] + sum(c.value for c in d['colors']),
    "slices": lambda d: len(d['records'][10:-10]) + len(d['words'][::2]) + len(list(reversed(d['words']))),
    "comprehensions": lambda d: len({r['name']: r for r in d['records']}) + len([*d['names'].values()]),
    "kwargs": kwargs,
    "merge": lambda d: sum(len(r | {'z': 1}) for r in d['records']) + sum(len({**r}) for r in d['records']),
    "equality": lambda d: (sum(a == b for a, b in zip(d['records'], copy.copy(d['records']))) +
                           (d['words'] == list(d['words']))),
    "bisecting": lambda d: sum(bisect.bisect(d['words'], 'word%08d' % i) for i in range(0, len(d['words']), 3)),
    "heap": lambda d: (heapq.nlargest(10, d['records'], key=operator.itemgetter('score'))[0]['id'] +
                       len(list(heapq.merge(d['words'], d['words'])))),
    "itertools_": lambda d: (sum(1 for _ in itertools.chain.from_iterable(r['tags'] for r in d['records'])) +
                             len(list(itertools.groupby(d['colors'])))),
    "counters": lambda d: (collections.Counter(d['counter']).most_common(1)[0][1] + len(d['default']) +
                           len(d['deque']) + sum(v for v in d['ordered'].values())),
    "collect": lambda d: gc.collect(),
    "csv_": csv_,
    "repr_": lambda d: len(repr(d['records'][::4])) + len(str(d['tuples'])),
    "min_max_sum": lambda d: (max(d['words']) > min(d['words']), sum(r['score'] for r in d['records']),
                              any(d['bytes']), all(d['tuples'])),
    "isinstance_getattr": lambda d: sum(isinstance(p, Plain) + hasattr(p, 'nothing') + getattr(p, 'i')
                                        for p in d['plain']),
    "zones": lambda d: sum(x.utcoffset().seconds for x in d['zoned']) + len({x for x in d['zoned']}),
    "digest": lambda d: hashlib.sha256(b''.join(d['bytes'])).hexdigest(),
}
if numpy:
    KINDS["arrays"] = arrays
if pandas:
    KINDS["frames"] = frames


DATA = build(int(os.environ.get("READINGS_MIB", "1")) * 560)


def warm_up():
    small = build(100)
    for _ in range(3):
        for read in KINDS.values():
            read(small)


def private_kib():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_") and "Hugetlb" not in line)


def work(kinds, results):
    for kind in kinds:
        KINDS[kind](DATA)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    results.put(private_kib())


def main(mode, method, *kinds):
    if method == "forkserver":
        context = multiprocessing.get_context("forkserver")
        if mode == "cowshed":
            import cowshed
            context = cowshed.get_context(["readings"], warm_up="readings:warm_up")
        else:
            context.set_forkserver_preload(["readings"])
    else:
        context = multiprocessing.get_context("fork")
        warm_up()
        gc.collect()
        if mode == "cowshed":
            import cowshed
            print(cowshed.freeze(), file=sys.stderr)
    results = context.SimpleQueue()
    workers = [context.Process(target=work, args=(kinds or [kind for kind in KINDS if kind != "frames"], results))
               for _ in range(int(os.environ.get("READINGS_WORKERS", "8")))]
    for worker in workers:
        worker.start()
    for _ in workers:
        print(results.get())
    for worker in workers:
        worker.join()
