"""Share Python objects with forked workers, without copies.

    import cowshed
    ...                  # import everything, load the data
    cowshed.freeze()     # then fork: reading no longer copies

docs/how-to/share-python-objects.md shows it for multiprocessing, gunicorn and others.
"""

import os as _os
import sys as _sys
import sysconfig as _sysconfig

try:
    import cowshed._cowshed as _cowshed  # "from cowshed import" says that the import is circular
except ModuleNotFoundError:
    _kind = ("free-threaded" if _sysconfig.get_config_var("Py_GIL_DISABLED") else
             "debug" if hasattr(_sys, "gettotalrefcount") else "")
    raise ImportError(f"cowshed was not built for this Python: {_sys.implementation.name} {_sys.version.split()[0]}"
                      f"{_kind and ', a ' + _kind + ' build, which it does not support'}; its folder has "
                      f"{', '.join(_name for _name in _os.listdir(_os.path.dirname(__file__)) if '.so' in _name)}"
                      ) from None

from cowshed._cowshed import built_for  # the version of Python, such as "3.14.8"
from cowshed.contexts import Context, get_context
from cowshed.errors import (Closed, Damaged, Error, LoadFailed, NotPublished, OutOfMemory, PeerStopped,
                            PublishedTooLate, Released, ThreadsRunning, TooLarge, Unsupported, WrongProcessTree)
from cowshed.freezing import Frozen, end_process, freeze, is_frozen, register_children
from cowshed.metering import Meter, Sent, copied, transfers
from cowshed.queues import Connection, Pipe, Queue, SimpleQueue
from cowshed.references import Ref, find, publish
from cowshed.settling import Collapsed, Settled, collapse_heap, settle

__version__ = _cowshed.version

__all__ = [
    "Closed", "Collapsed", "Connection", "Context", "Damaged", "Error", "Frozen", "LoadFailed", "Meter",
    "NotPublished", "OutOfMemory", "PeerStopped", "Pipe", "PublishedTooLate", "Queue", "Ref", "Released", "Sent",
    "Settled", "SimpleQueue", "ThreadsRunning", "TooLarge", "Unsupported", "WrongProcessTree", "built_for",
    "collapse_heap", "copied", "end_process", "find", "freeze", "get_context", "is_frozen", "publish",
    "register_children", "settle", "transfers",
]
