"""`cowshed run`: freezes programs that nobody edits, before they fork.

command.py is the command.  site/ is what it puts on PYTHONPATH; at_fork.py is loaded from there."""
