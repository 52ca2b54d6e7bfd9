#!/usr/bin/env bash
# Checks that the sources' includes are arrows of docs/architecture.md, that the right headers are
# installed, and that arrows.py fails for each fault.
set -euo pipefail
arrows() { /usr/bin/python3 "$SOURCE/tests/check/arrows.py" "$@"; }
arrows "$SOURCE"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
file() { # file PATH [HEADER]: that includes HEADER
  mkdir -p "$(dirname "$folder/$1")"
  printf '%s\n' '#pragma once' ${2:+"#include <cowshed/$2>"} >"$folder/$1"
}
install() { # install FOLDER HEADERS...
  printf 'cowshed_library(\n  %s\n  HEADERS %s)\n' "$1" "${*:2}" >"$folder/$1/CMakeLists.txt"
}
fresh() {
  rm -rf "${folder:?}"/*
  mkdir "$folder/docs"
  printf '%s\n' '| `low` | | | Public: at the bottom |' '| `high/a` | `high/door.h` | `low` | uses it |' \
    '| `high/b` | | `high/a` | uses that |' >"$folder/docs/architecture.md"
  file low/x.h
  file low/y.h
  file high/door.h low/x.h
  file high/a/part.h high/door.h
  file high/b/user.h high/door.h
  install low x.h y.h
  install high door.h
}
fails_for() { # fails_for WORDS
  local said
  said=$(arrows "$folder") && { echo "does not fail: $1"; exit 1; }
  grep -qF -- "$1" <<<"$said" || { echo "does not say '$1': $said"; exit 1; }
}

fresh
arrows "$folder"
file low/x.h high/a/part.h
fails_for 'low/x.h includes high/a/part.h: low may not include high/a'
fails_for 'a cycle of rooms: high/a low'
fresh
file low/x.h low/y.h
file low/y.h low/x.h
fails_for 'a cycle of modules: low/x.h low/y.h'
fresh
file high/b/user.h high/b/gone.h
fails_for 'high/b/user.h includes high/b/gone.h, which is not there'
fails_for 'high/b may include high/a, but does not'
fresh
file high/c/x.h low/x.h
fails_for 'high/c/x.h: its folder is no room'
fresh
install low x.h
fails_for 'low/y.h is public or included by a public header, but not installed'
fresh
install high door.h a/part.h
fails_for 'high/a/part.h is installed, but no public header needs it'
fresh
echo '| `share/a` | | `low` | inside |' >>"$folder/docs/architecture.md"
file share/a/x.h low/x.h
echo 'namespace cowshed {' >>"$folder/share/a/x.h"
fails_for 'share/a/x.h is not installed: its names belong in cowshed::internal'
fresh
for i in $(seq 26); do file "low/$i.h"; done
fails_for 'low has 28 files; at most 25'
