"""What is in the folders of sys.path: a program may find other modules there than its zygote has found."""

from __future__ import annotations

import contextlib
import importlib.machinery
import os
import sys

from cowshed.run.watch import Identity, identity

_SUFFIXES = (*importlib.machinery.all_suffixes(),)


class Folders:
    def __init__(self) -> None:
        self._known = {path: (identity(f"{path}/"), _modules(path)) for path in sys.path if os.path.isdir(path)}

    def changed(self) -> list[str]:
        """Those that have other modules now.  Further files may come and go, as in a program's working directory."""
        for path, (was, modules) in self._known.items():
            if (now := identity(f"{path}/")) != was:
                if _modules(path) != modules:
                    return [path]
                self._known[path] = now, modules
        return []


def read_before() -> dict[str, Identity]:
    """What site and importlib have read or missed before this module could see it."""
    files = {path: identity(path) for path in sys.path if not os.path.isdir(path)}
    for path in filter(_is_site, sys.path):
        with contextlib.suppress(OSError):
            files.update((name, identity(name)) for name in (f"{path}/{each}" for each in os.listdir(path))
                         if name.endswith(".pth"))
    return files


def _is_site(path: str) -> bool:
    return path.endswith(("/site-packages", "/dist-packages"))


def _modules(path: str) -> frozenset[str]:
    suffixes = (*_SUFFIXES, ".pth") if _is_site(path) else _SUFFIXES
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        return frozenset(each.name for each in entries if each.name.endswith(suffixes) or
                         each.is_dir() and os.path.exists(f"{each.path}/__init__.py"))
    return frozenset()
