"""`cowshed run`: freezes programs that nobody edits, before they fork.

command.py is the command.  site/ is what it puts on PYTHONPATH; at_fork.py and warm.py are loaded from there.
spawning.py and spawn_server.py are for multiprocessing's spawn, warm.py and zygote.py for programs that start again."""
