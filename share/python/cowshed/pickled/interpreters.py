# mypy: ignore-errors
"""How an interpreter is made to record."""

import os

def recording(environment, folder):
    """The environment in which an interpreter imports our sitecustomize, which takes this back."""
    before = environment.get("PYTHONPATH")
    environment = {**environment, "COWSHED_PICKLED": folder,
                   "PYTHONPATH": os.pathsep.join([folder, before] if before else [folder])}
    if before is not None:
        environment["COWSHED_PICKLED_PYTHONPATH"] = before
    return environment


def entry(folder, method):
    """Python code that makes an interpreter record; harmless when the folder is gone."""
    return (f"import sys; sys.path.insert(0, {folder!r})\n"
            "try: from _cowshed_pickled.watches import instrument as _instrument\n"
            "except ImportError: _instrument = None\n"
            f"sys.path.remove({folder!r})\n"
            f"if _instrument: _instrument({folder!r}, {method!r})\n"
            "del _instrument")


# Python imports it at its start, before the script: takes back all that brought it there.
SITECUSTOMIZE = """\
import os, sys
_config = os.environ.pop("COWSHED_PICKLED")
_path = os.environ.pop("COWSHED_PICKLED_PYTHONPATH", None)
if _path is None:
    del os.environ["PYTHONPATH"]
else:
    os.environ["PYTHONPATH"] = _path
while _config in sys.path:
    sys.path.remove(_config)
{entry}
_ours = sys.modules.pop("sitecustomize")
try:
    import sitecustomize
except ImportError as _error:
    if _error.name != "sitecustomize":
        raise
    sys.modules["sitecustomize"] = _ours
"""
