# mypy: ignore-errors
"""Reads a pickle's bytes."""

# Opcodes that make one value without others.
VALUES = frozenset("""
    NONE NEWTRUE NEWFALSE BININT1 BININT2 BININT LONG1 LONG4 BINFLOAT EMPTY_TUPLE EXT1 EXT2 EXT4
    SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8""".split())
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
BEGINS = {**EMPTY, "FROZENSET": frozenset}  # of nothing
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
ATOMS = frozenset((type(None), bool, int, float, str, bytes))
MOST_PARTS = 1000  # names that are kept of one object's attributes, or of one tuple's items


class Unreadable(Exception):
    """The stream and the list of objects do not fit: only the whole is reported."""


class Node:
    """Objects of one type in one place, and what is inside them."""

    __slots__ = ("label", "count", "own", "again", "kids", "parts", "value")

    def __init__(self, own, value=None, label=None, parts=None, again=0):
        self.label = label or type(value).__qualname__
        self.count = 1 - again
        self.own = own  # bytes, those of the objects inside left out
        self.again = again  # references to an object that the same pickle had already
        self.kids = {}  # (edge, label) -> Node
        self.parts = parts  # [(name or None, child)], as long as names may still be given to them
        self.value = value

    def bytes(self):
        return self.own + sum(kid.bytes() for kid in self.kids.values())

    def is_leaf(self):
        return self.parts is None and not self.kids

    def is_attributes(self):
        return (type(self.value) is dict and self.parts is not None
                and all(type(key.value) is str for key, _ in self.parts))

    def add(self, edge, child):
        child.settle()
        kid = self.kids.setdefault((edge, child.label), child)
        if kid is child:
            child.value = None
            return
        kid.count += child.count
        kid.own += child.own
        kid.again += child.again
        for (inner, _), grandchild in child.kids.items():
            kid.add(inner, grandchild)

    def put(self, key, child):
        """Another part.  Too many of them get no names."""
        if self.parts is not None and len(self.parts) == MOST_PARTS:
            self.settle()
        if self.parts is not None:
            self.parts.append((key, child))
            return
        if key is not None:
            self.add(" key", key)
        self.add("", child)

    def settle(self):
        """Nobody has given names to the parts: they are plain contents."""
        parts, self.parts = self.parts, None
        for key, child in parts or ():
            self.put(key, child)

    def absorb(self, edge, child, names):
        """Takes in what is inside `child`, a tuple or dict that is only a way to carry it.
        `names`: None (the child is an object like others), "index", "each", "dict", or for a tuple
        a list of an (edge, names) for each of its items."""
        if names is None or child.is_leaf() or type(child.value) not in (tuple, dict):
            self.add(edge, child)
            return
        self.own += child.own
        self.name_parts(edge, child, names)

    def name_parts(self, edge, child, names):
        parts, child.parts = child.parts, None
        if parts is None:  # too many for names
            for (inner, _), kid in child.kids.items():
                self.add(edge if names == "each" else f"{edge}[*]{inner}", kid)
            return
        if type(names) is list and len(names) != len(parts):
            names = "index"
        for index, (key, part) in enumerate(parts):
            if key is not None:
                self.own += size_of(key)
            if names == "each":
                self.add(edge, part)
            elif names == "dict" and type(key.value) is str:
                self.add(f"{edge}[{key.value!r}]", part)
            elif type(names) is list:
                name, inner = names[index]
                self.absorb(edge + name, part, inner)
            else:
                self.add(f"{edge}[{index}]", part)

    def take_apart(self, carrier, names="each"):
        """The items of a tuple or dict that pickle itself has made are the object's own."""
        if carrier.is_leaf():
            self.own += carrier.own
        else:
            self.absorb("", carrier, names)


def size_of(node):
    node.settle()
    return node.bytes()


def operations(data):
    """(opcode's name, argument, bytes) of each operation in a pickle."""
    import pickletools

    before = None
    for opcode, argument, at in pickletools.genops(data):
        if before is not None:
            yield *before[:2], at - before[2]
        before = opcode.name, argument, at
    yield *before[:2], 1  # STOP


def measure(data, objects, root_label, names=None, state_names=None):
    """The tree of what is in `data`, a pickle of protocol 4 or 5, given the objects in the order in
    which the pickler came to them.  Raises Unreadable, and what pickletools raises."""
    stack, marks, memo, pending = [], [], [], []
    known = set()  # ids of what the pickler's memo holds
    to_come = iter(objects)
    at = 0
    overhead = 0
    dropped = None  # bytes that a POP has thrown away, for the GET behind it

    def leaf(name):
        """The object that this opcode stands for; those that begin with it are put aside."""
        for value in to_come:
            kind = type(value)
            if name in BEGINS:
                found = kind is BEGINS[name]
            else:
                found = (kind in ATOMS or id(value) in known or (kind is tuple and not value)
                         or name.startswith("EXT") and isinstance(value, type)
                         or "BYTE" in name and kind.__name__ in ("bytearray", "PickleBuffer"))
            if found:
                return value
            pending.append(value)
        raise Unreadable

    def pop_to_mark():
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def made_of(children, own):
        node = Node(own, pending.pop(), parts=[])
        for child in children:
            node.put(None, child)
        stack.append(node)

    def set_items(items, own):
        stack[-1].own += own
        for key, value in zip(items[::2], items[1::2]):
            stack[-1].put(key, value)

    def construct(callee, arguments):
        node = Node(1 + size_of(callee), pending.pop())
        node.take_apart(arguments)
        stack.append(node)

    def set_attributes(node, state):
        node.own += state.own
        for key, child in state.parts:
            node.own += key.own
            edge, inner = f".{key.value}", None
            if state_names and node.value is objects[0]:
                edge, inner = state_names.get(key.value, (edge, None))
            node.absorb(edge, child, inner)
        state.parts = None

    def build(node, state):
        node.own += 1
        if state.is_attributes():
            set_attributes(node, state)
            return
        if type(state.value) is not tuple or state.is_leaf():
            node.add("", state)
            return
        # Attributes, or None for none, and slots.
        parts = [child for _, child in state.parts or ()]
        if len(parts) == 2 and parts[1].is_attributes() and (
                parts[0].value is None or parts[0].is_attributes()):
            node.own += state.own
            for part in parts:
                if part.value is None:
                    node.own += part.own
                else:
                    set_attributes(node, part)
            return
        node.take_apart(state)

    steps = operations(data)
    for name, argument, size in steps:
        at += size
        if name in VALUES:
            stack.append(Node(size, leaf(name)))
        elif name == "MEMOIZE":
            stack[-1].own += 1
            memo.append(id(stack[-1].value))
            known.add(memo[-1])
        elif name in ("BINGET", "LONG_BINGET"):
            if dropped is not None:  # an object that contains itself, by a tuple or a reducer
                if pending and id(pending[-1]) == memo[argument]:
                    pending.pop()
                stack.append(Node(size + dropped, None, "itself", again=1))
                dropped = None
            else:
                value = leaf(name)
                if id(value) != memo[argument]:
                    raise Unreadable
                stack.append(Node(size, value, again=1))
        elif name == "MARK":
            marks.append(len(stack))
        elif name in EMPTY:
            stack.append(Node(1, leaf(name), parts=[] if name == "EMPTY_DICT" else None))
        elif name in ("APPENDS", "ADDITEMS"):
            items = pop_to_mark()
            stack[-1].own += 2
            for item in items:
                stack[-1].add("", item)
        elif name == "APPEND":
            item = stack.pop()
            stack[-1].own += 1
            stack[-1].add("", item)
        elif name == "SETITEMS":
            set_items(pop_to_mark(), 2)
        elif name == "SETITEM":
            value = stack.pop()
            set_items([stack.pop(), value], 1)
        elif name in TUPLES:
            items = stack[-TUPLES[name]:]
            del stack[-TUPLES[name]:]
            if data[at:at + 2] == b"R0":  # REDUCE POP: setter(object, state) of a reducer
                at += sum(next(steps)[2] for _ in range(2))
                setter = stack.pop()
                stack[-1].own += 2 + size_of(setter) + size_of(items[0])
                build(stack[-1], items[1])
            else:
                made_of(items, 1)
        elif name in ("TUPLE", "FROZENSET"):
            items = pop_to_mark()
            if not items:  # nothing in it that it could have begun with
                pending.append(leaf(name))
            made_of(items, 2)
        elif name == "STACK_GLOBAL":
            function = stack.pop()
            module = stack.pop()
            stack.append(Node(1 + module.own + function.own, pending.pop(),
                              f"global {module.value}.{function.value}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments = stack.pop()
            construct(stack.pop(), arguments)
        elif name == "NEWOBJ_EX":
            keywords = stack.pop()
            arguments = stack.pop()
            construct(stack.pop(), arguments)
            stack[-1].take_apart(keywords, "dict")
        elif name == "BUILD":
            state = stack.pop()
            build(stack[-1], state)
        elif name in ("PROTO", "FRAME", "STOP"):
            if name == "PROTO" and argument not in (4, 5):
                raise Unreadable
            overhead += size
        elif name == "POP":
            dropped = (dropped or 0) + 1 + size_of(stack.pop())
        elif name == "POP_MARK":
            dropped = (dropped or 0) + 2 + sum(size_of(item) for item in pop_to_mark())
        else:
            raise Unreadable
    if len(stack) != 1 or pending or list(to_come):
        raise Unreadable
    top = stack[0]
    if names is not None and top.parts is not None:
        top.name_parts("", top, names)
    top.settle()
    top.own += overhead
    if top.bytes() != len(data):
        raise Unreadable
    if root_label:
        top.label = root_label
    return top
