#!/usr/bin/env bash
# That clang-format, as tools/check calls it, fails for a seeded fault.
set -euo pipefail
folder=$(mktemp -d "$BUILD/lint.XXXXXX") # below the sources, whose settings it has
trap 'rm -rf "$folder"' EXIT

must() { # must pass|fail FILE COMMAND...
  local expected=$1 file=$2 outcome=pass
  shift 2
  "$@" "$file" >"$folder/output" 2>&1 || outcome=fail
  [ "$outcome" = "$expected" ] && return
  cat "$folder/output"
  echo "$1 of $file: $outcome, not $expected"
  exit 1
}
format() { clang-format-19 --dry-run --Werror "$1"; }

printf 'int* nothing() { return nullptr; }\n' >"$folder/good.cc"
printf 'int*nothing( ){return nullptr;}\n' >"$folder/unformatted.cc"
must pass "$folder/good.cc" format
must fail "$folder/unformatted.cc" format
