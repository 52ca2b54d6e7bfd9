#!/usr/bin/env bash
# That tools/sources.sh names uncommitted sources and works in somebody else's checkout.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/tools"
cp "$SOURCE/tools/sources.sh" "$folder/tools"
git -C "$folder" init -q
printf 'build/\n' >"$folder/.gitignore"
mkdir "$folder/build"
touch "$folder/committed.cc" "$folder/removed.cc" "$folder/new.cc" "$folder/build/made.cc" "$folder/other.txt"
git -C "$folder" add .gitignore committed.cc removed.cc
rm "$folder/removed.cc"
[ "$(id -u)" -ne 0 ] || chown -R nobody "$folder"

listed() { bash -c '. "$1"/tools/sources.sh; sources "*.cc"' - "$folder"; }
[ "$(listed)" = "committed.cc
new.cc" ] || { echo "listed: $(listed)"; exit 1; }

rm -rf "$folder/.git"
if listed 2>/dev/null; then
  echo "no checkout at all, and it did not fail"
  exit 1
fi
