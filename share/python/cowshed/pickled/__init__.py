# mypy: ignore-errors
"""What does a Python program pickle when it uses multiprocessing?  `pickled --help` tells.

`command` runs the program and prints the `report`.  The interpreters of the program import a copy of this package as
`_cowshed_pickled`.  There `recorder` writes down what is pickled: `watches` changes a module of multiprocessing when
the program has imported it, and `streams` reads the pickles.  Until the program itself imports multiprocessing, they
import nothing but what is built into the interpreter or there at its start.

The bytes that are sent are those of the stock pickler.  It reports each object as it comes to it (`persistent_id`,
which answers None), in the order of the stream; so the stream, read afterwards opcode by opcode beside that list, gives
the exact bytes and the exact type of each object, without running any reducer twice.
"""
