# mypy: ignore-errors
"""python -m cowshed.pickled, or the folder itself: the sources' cowshed cannot be imported."""

import importlib
import os
import sys

if not __package__:
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
main = importlib.import_module(".command", __package__ or "pickled").main
sys.exit(main(sys.argv[1:]))
