# mypy: ignore-errors
"""What was recorded, as tables and as JSON."""

import marshal
import os
import sys

from .recorder import QUEUES

SCHEMA = "cowshed.pickled/1"
PIPE_BYTES = 65536


class Run:
    """One run of the program, and what it has pickled."""

    def __init__(self, method, status):
        self.method = method  # what was asked for, or "" for the program's own choice
        self.status = status
        self.processes = 0
        self.starts = {}  # start method -> [processes started]
        self.channels = {}  # (kind, channel) -> [messages, objects, bytes, put, taken]
        # (kind, channel, ((edge, label), ...)) -> [count, own, again, bytes]
        self.paths = {}
        self.failures = {}  # (kind, channel, error) -> [count]
        self.mapped = {}  # (kind, channel) -> [arrays, bytes]

    def read(self, folder):
        for name in os.listdir(folder):
            if name.endswith(".record"):
                self.processes += 1
                with open(f"{folder}/{name}", "rb") as file:
                    self.read_process(file)
        for (kind, channel, path), row in self.paths.items():
            for depth in range(1, len(path) + 1):
                self.paths[kind, channel, path[:depth]][3] += row[1]

    def read_process(self, file):
        records = []
        while True:
            try:
                records.append(marshal.load(file))
            except (EOFError, ValueError, TypeError):  # killed while it wrote the last
                break
        # A record that a signal handler wrote uses paths that a later one defines.
        steps = {path: step for record in records for path, *step in record[6]}
        paths = {-1: ()}
        for path in sorted(steps):
            parent, edge, label = steps[path]
            paths[path] = (*paths[parent], (edge, label))
        for kind, channel, method, size, error, event, _, rows in records:
            if error:
                add(self.failures, (kind, channel, error), 1)
                continue
            if event == "mapped":
                add(self.mapped, (kind, channel), 1, size)
                continue
            if event == "started":
                add(self.starts, method, 1)
            add(self.channels, (kind, channel), int(event == "sent"),
                sum(row[1] for row in rows), size, int(event == "put"), int(event == "taken"))
            for path, count, own, again in rows:
                add(self.paths, (kind, channel, paths[path]), count, own, again, 0)

    def name(self):
        return self.method or "/".join(sorted(self.starts)) or "as it is"

    def totals(self):
        return [sum(row[index] for row in self.channels.values()) for index in range(3)]

    def never_taken(self):
        """Of each queue: (its name, messages left, of how many, their bytes by the mean)."""
        for (kind, channel), (messages, _, size, put, taken) in sorted(self.channels.items()):
            if kind in QUEUES and taken < put:
                yield channel, put - taken, put, (put - taken) * size // max(messages, 1)

    def by_kind(self):
        rows = {}
        for (kind, channel, path), row in self.paths.items():
            add(rows, (kind, path), *row)
        return rows


def add(sums, key, *amounts):
    row = sums.setdefault(key, [0] * len(amounts))
    row[:] = map(sum, zip(row, amounts))


def units(size):
    if size < 1024:
        return f"{size} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024 or unit == "GiB":
            return f"{size:.1f} {unit}"


def text_of(path):
    text = path[0][1]
    for edge, label in path[1:]:
        text += f"{edge} → {label}"
    return text


def carrier_of(path):
    """The attribute or argument that carried it, or None: what was sent is the object itself."""
    return path[0][1] + path[1][0] if len(path) > 1 and path[1][0] else None


def table(rows, left, heading):
    """Lines of a table; columns from `left` on are text, those before it figures."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) if index >= left else cell.rjust(width)
                 for index, (cell, width) in enumerate(zip(row, widths))]
        line = "  ".join(cells).rstrip()
        yield line if number else heading(line)


def things(count, name):
    return f"{count} {name}{'' if count == 1 else 'es' if name.endswith('s') else 's'}"


def signal_name(number):
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def by_channel(channels, single):
    rows = {}
    for (kind, channel), total in channels.items():
        add(rows, (kind, channel if single or kind != "Process start" else ""), *total)
    return rows


def side_by_side(tables):
    """For each key the rows that the tables have for it, or None."""
    return {key: [table.get(key) for table in tables] for table in tables for key in table}


def report_text(options, runs, heading):
    command = options.command[0]
    for run in runs:
        messages, objects, size = run.totals()
        starts = ", ".join(f"{count} by {method}" for method, (count,) in sorted(run.starts.items()))
        asked = f" --start-method {run.method}" if run.method else ""
        yield heading(f"pickled{asked}: {command}, by {sys.executable}: {things(messages, 'pickle')} of "
                      f"{things(objects, 'object')}, {units(size)}; "
                      f"processes started: {starts or 'none'}")
        if run.status > 128:
            yield (f"  The program was ended by {signal_name(run.status - 128)}: what follows is "
                   "what it had done until then.")
        if run.method and any(method != run.method for method in run.starts):
            yield f"  The program itself chose another start method than {run.method}."
        for (kind, channel, error), (count,) in sorted(run.failures.items()):
            yield f"  Could not be pickled, {count} x: {kind} ({channel}): {error}"
        for (kind, channel), (count, size) in sorted(run.mapped.items()):
            yield (f"  Not counted: {things(count, 'array')} of {units(size)} that {channel} passes as files, "
                   "which the receiver maps")
        left = list(run.never_taken())
        for channel, count, put, _ in left:
            yield f"  Put and never taken: {count} of {things(put, 'message')}, {channel}"
        if any(size > PIPE_BYTES for *_, size in left) and run.status > 128:
            yield ("  A process ends only when what it has put is in the pipe, which holds 64 KiB: "
                   "get() before join().")
    yield ""
    single = len(runs) == 1
    names = ["BYTES"] if single else [run.name().upper() for run in runs]
    # The start method is the channel of a start: side by side, that is the column.
    kinds = side_by_side([by_channel(run.channels, single) for run in runs])
    if kinds:
        ordered = sorted(kinds.items(), key=lambda item: -max(row[2] for row in item[1] if row))
        if single:
            rows = [("MESSAGES", "OBJECTS", "BYTES", "TRANSFER", "CHANNEL")]
            rows += [(str(row[0][0]), str(row[0][1]), units(row[0][2]), *key)
                     for key, row in ordered]
        else:
            rows = [(*names, "TRANSFER", "CHANNEL")]
            rows += [(*(f"{cell[0]} x, {units(cell[2])}" if cell and cell[0] else "nothing"
                        for cell in row), *key) for key, row in ordered]
        yield from table(rows, len(rows[0]) - 2, heading)
        yield ""
    paths = side_by_side([run.by_kind() for run in runs])
    if not paths:
        yield "Nothing was pickled."
        return
    ordered = sorted(paths.items(), key=lambda item: (-max(row[3] for row in item[1] if row),
                                                      item[0][0], len(item[0][1])))
    shown = ordered[:options.top] if options.top else ordered
    again = any(row and row[2] for _, cells in shown for row in cells)
    rows = [(*names, "OBJECTS", *(["AGAIN"] if again else []), "TRANSFER", "TYPE PATH")]
    for (kind, path), cells in shown:
        most = [max(row[index] for row in cells if row) for index in range(3)]
        rows.append((*(units(row[3]) if row else "-" for row in cells), str(most[0]),
                     *([str(most[2])] if again else []), kind, text_of(path)))
    yield from table(rows, len(rows[0]) - 2, heading)
    if len(shown) < len(ordered):
        yield f"... and {len(ordered) - len(shown)} more, all smaller (--top 0 prints all)"


def report_json(options, runs):
    import json

    def run_object(run):
        messages, objects, size = run.totals()
        rows = sorted(run.paths.items(), key=lambda item: (-item[1][3], len(item[0][2])))
        return {
            "start_method": run.method or None,
            "exit_status": run.status,
            "processes_recorded": run.processes,
            "processes_started": {method: count for method, (count,) in run.starts.items()},
            "messages": messages, "objects": objects, "bytes": size,
            "channels": [{"transfer": kind, "channel": channel, "messages": total[0],
                          "objects": total[1], "bytes": total[2],
                          "put": total[3] if kind in QUEUES else None,
                          "taken": total[4] if kind in QUEUES else None}
                         for (kind, channel), total in
                         sorted(run.channels.items(), key=lambda item: -item[1][2])],
            "paths": [{"transfer": kind, "channel": channel, "type_path": text_of(path),
                       "carrier": carrier_of(path), "objects": row[0], "bytes": row[3],
                       "own_bytes": row[1], "again": row[2]}
                      for (kind, channel, path), row in rows],
            "failures": [{"transfer": kind, "channel": channel, "error": error, "count": count}
                         for (kind, channel, error), (count,) in sorted(run.failures.items())],
            "mapped": [{"transfer": kind, "channel": channel, "arrays": count, "bytes": size}
                       for (kind, channel), (count, size) in sorted(run.mapped.items())],
        }

    return json.dumps({"schema": SCHEMA, "command": options.command,
                       "runs": [run_object(run) for run in runs]}, indent=1, ensure_ascii=False)
