# mypy: ignore-errors
"""What one process writes down."""

import _thread
import marshal
import os

QUEUES = ("Queue put", "JoinableQueue put", "SimpleQueue put")
DEEPEST = 24  # steps of a type path; what is deeper is counted in the last


class Recorder:
    """What one process writes down, a record per transfer, in a file of its own that is closed
    between records: a killed process leaves all that it has sent, and the script sees no descriptor
    of ours."""

    def __init__(self, folder, method):
        self.folder = folder
        self.method = method  # the start method that was asked for, or ""
        self.local = _thread._local()
        self.after_fork()

    def after_fork(self):
        self.lock = _thread.RLock()  # a signal handler may send, too
        # Set before the first record: a signal handler may write a record during another.
        self.file = f"{os.getpid()}-{os.urandom(8).hex()}.record"
        self.numbers = iter(range(1 << 62))
        self.paths = {}
        self.channels = {}
        self.channels_read = 0

    def append(self, name, record):
        try:
            with open(f"{self.folder}/{name}", "ab", buffering=0) as file:
                file.write(marshal.dumps(record))
        except OSError:  # the report is out already: this process has outlived its script
            pass

    def write(self, kind, channel, method, size, tree, error=None, event="sent"):
        with self.lock:
            new, rows = [], []
            pending = [(-1, "", tree, 0)] if tree is not None else []
            while pending:
                parent, edge, node, depth = pending.pop()
                key = (parent, edge, node.label)
                path = self.paths.get(key)
                if path is None:
                    path = self.paths[key] = next(self.numbers)
                    new.append((path, parent, edge, node.label))
                own = node.own if depth < DEEPEST else node.bytes()
                rows.append((path, node.count, own, node.again))
                if depth < DEEPEST:
                    for (inner, _), kid in node.kids.items():
                        pending.append((path, inner, kid, depth + 1))
            self.append(self.file, (kind, channel, method, size, error, event, new, rows))

    def name_channel(self, connections, kind, name):
        for identity in filter(None, map(identity_of, connections)):
            self.channels[identity] = (kind, name)
            self.append("channels", (identity, kind, name))

    def channel_of(self, connection):
        identity = identity_of(connection)
        if identity and identity not in self.channels:
            self.read_channels()
        return self.channels.get(identity)

    def read_channels(self):
        try:
            with open(f"{self.folder}/channels", "rb") as file:
                file.seek(self.channels_read)
                while True:
                    identity, kind, name = marshal.load(file)
                    self.channels_read = file.tell()
                    self.channels[identity] = (kind, name)  # a Pool names its queues once more
        except (OSError, EOFError, ValueError, TypeError):
            pass


def identity_of(connection):
    """A pipe or socket has the same inode in all processes that hold it; None: it has none."""
    try:
        status = os.fstat(connection.fileno())
    except (OSError, AttributeError):
        return None
    return status.st_dev, status.st_ino


active = None  # this process's


def start(folder, method):
    global active
    active = Recorder(folder, method)
    os.register_at_fork(after_in_child=active.after_fork)
