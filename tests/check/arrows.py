#!/usr/bin/env python3
"""Fails on an #include that the tables of rooms in docs/architecture.md do not allow.

Usage: arrows.py [ROOT]

It also fails on a cycle of rooms or of modules, on a folder of more than 25 files, on an arrow that no
include uses, where the installed headers are not the public ones and all that they include, and where
another header of INTERNAL declares names in namespace cowshed itself.  A module is a header with the
source of the same name.  A room whose description begins with "Public:" consists of public headers.
"""

import pathlib
import re
import sys

MOST_FILES = 25
INCLUDE = re.compile(r'^\s*#include (?:<cowshed/([^>]+)>|"([^"]+)")', re.M)
ROOM = re.compile(r'^\| `([\w/]+)` \|([^|]*)\|([^|]*)\|([^|]*)\|$', re.M)
INSTALLED = re.compile(r'^ +HEADERS ([^)]*)\)', re.M)
INTERNAL = ('base/', 'share/')


def names(cell):
    return set(re.findall(r'`([\w/.]+)`', cell))


def cycles(graph):
    """The strongly connected parts of more than one node, by Tarjan."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = stack[stack.index(node):]
            del stack[stack.index(node):]
            if len(part) > 1:
                found.append(' '.join(sorted(part)))

    sys.setrecursionlimit(10000)
    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2])
    doors, arrows, public_rooms = {}, {}, set()
    for room, headers, allowed, purpose in ROOM.findall((root / 'docs/architecture.md').read_text()):
        arrows[room] = names(allowed)
        doors.update({header: room for header in names(headers)})
        if purpose.strip().startswith('Public:'):
            public_rooms.add(room)
    if not arrows:
        sys.exit('arrows: docs/architecture.md has no table of rooms')
    faults = [f'{room} may include {other}, which is no room' for room in arrows for other in arrows[room] - set(arrows)]
    files = {}
    for top in sorted({room.split('/')[0] for room in arrows}):
        for path in sorted((root / top).rglob('*')):
            if path.suffix in ('.h', '.cc', '.c') and path.is_file():
                files[str(path.relative_to(root))] = path.read_text()

    def room_of(file):
        return doors.get(file) or str(pathlib.PurePath(file).parent)

    includes = {}
    for file, text in files.items():
        own = pathlib.PurePath(file).parent
        found = [bracketed or str(own / quoted) for bracketed, quoted in INCLUDE.findall(text)]
        includes[file] = [other for other in found if other in files]
        missing = [bracketed for bracketed, _ in INCLUDE.findall(text) if bracketed and bracketed not in files]
        faults += [f'{file} includes {other}, which is not there' for other in missing]
    if not any(includes.values()):
        sys.exit('arrows: no include was found')

    def module_of(file):
        room, stem = room_of(file), pathlib.PurePath(file).stem
        top, last = str(pathlib.PurePath(room).parent), pathlib.PurePath(room).name
        own = [f'{room}/{stem}.h', f'{top}/{stem}.h', f'{top}/{last}_{stem}.h']
        return next((header for header in own if header in files and room_of(header) in (room, top)), file)

    used, rooms, modules = set(), {}, {}
    for file, others in includes.items():
        room = room_of(file)
        if room not in arrows:
            faults.append(f'{file}: its folder is no room of docs/architecture.md')
        for other in others:
            if room_of(other) != room:
                used.add((room, room_of(other)))
                rooms.setdefault(room, set()).add(room_of(other))
                if room_of(other) not in arrows.get(room, ()):
                    faults.append(f'{file} includes {other}: {room} may not include {room_of(other)}')
            if module_of(other) != module_of(file):
                modules.setdefault(module_of(file), set()).add(module_of(other))
    for path in sorted((root / 'share').rglob('*.py')):
        room = str(path.parent.relative_to(root))
        if room not in arrows:
            faults.append(f'{path.relative_to(root)}: its folder is no room of docs/architecture.md')
        if re.search(r'^ *(from cowshed import|import cowshed\.)\s*_cowshed\b', path.read_text(), re.M):
            used.add((room, 'share/python/extension'))
            if 'share/python/extension' not in arrows.get(room, ()):
                faults.append(f'{path.relative_to(root)}: {room} may not import share/python/extension')
    faults += [f'a cycle of rooms: {cycle}' for cycle in cycles(rooms)]
    faults += [f'a cycle of modules: {cycle}' for cycle in cycles(modules)]
    faults += [f'{room} may include {other}, but does not' for room in sorted(arrows) for other in sorted(arrows[room])
               if (room, other) not in used]
    folders = [str(pathlib.PurePath(file).parent) for file in files]
    faults += [f'{folder} has {folders.count(folder)} files; at most {MOST_FILES}' for folder in sorted(set(folders))
               if folders.count(folder) > MOST_FILES]
    needed = set()
    more = set(doors) | {file for file in files if file.endswith('.h') and room_of(file) in public_rooms}
    while more:
        needed |= more
        more = {other for file in more for other in includes.get(file, ())} - needed
    installed = {f'{path.parent.name}/{header}' for path in root.glob('*/CMakeLists.txt')
                 for block in INSTALLED.findall(path.read_text()) for header in block.split()
                 if header.endswith('.h')}
    faults += [f'{file} is public or included by a public header, but not installed' for file in sorted(needed - installed)]
    faults += [f'{file} is installed, but no public header needs it' for file in sorted(installed - needed)]
    faults += [f'{file} is not installed: its names belong in cowshed::internal' for file, text in files.items()
               if file.startswith(INTERNAL) and file.endswith('.h') and file not in installed
               and re.search(r'^namespace cowshed \{', text, re.M)]
    print('\n'.join(faults) or f'{len(files)} files in {len(arrows)} rooms: each include is an arrow')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
