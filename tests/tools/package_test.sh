#!/bin/bash
# package_test.sh BUILD: makes the Debian packages from that build folder, installs them on this
# machine, uses them, and removes them again, whatever fails.
set -euo pipefail
build=$1
source=$(cd "$(dirname "$0")/../.." && pwd)

skip() { printf '%s: Skipped\n%s\n' "$0" "$1"; exit 77; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

[ "$(id -u)" -eq 0 ] || skip "only root can install a package"
for tool in dpkg dpkg-shlibdeps help2man lintian man; do
  command -v "$tool" >/dev/null || skip "there is no $tool"
done
exec 9</var/lib/dpkg
flock 9 # another build folder's run of this test
packages=(cowtop libcowshed-dev python3-cowshed)
for package in "${packages[@]}"; do
  ! dpkg-query -W "$package" >/dev/null 2>&1 || skip "$package is installed here already"
done

work=$(mktemp -d)
dpkg_alone() { # waits while another program has dpkg's lock
  local try
  for try in {1..60}; do
    dpkg "$@" >"$work/dpkg.log" 2>&1 && return 0
    grep -q 'lock was locked' "$work/dpkg.log" || break
    sleep 1
  done
  cat "$work/dpkg.log" >&2
  return 1
}
remove() { dpkg_alone --purge "${packages[@]}"; }
trap 'remove || true; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM # when what runs has ended

cpack -G DEB --config "$build/CPackConfig.cmake" -B "$work/packages" >"$work/cpack.log" 2>&1 ||
  fail "$(cat "$work/cpack.log")"
debs=("$work"/packages/*.deb)
[ ${#debs[@]} -eq 3 ] || fail "not three packages: ${debs[*]}"
dpkg-deb -f "$work"/packages/cowtop_*.deb Depends | grep -q 'libbpf1.*libc6' ||
  fail "cowtop does not depend on the libraries that it is linked with"
# The stub is static, and the library that undoes copies is preloaded.
lintian --allow-root --fail-on error \
  --suppress-tags statically-linked-binary,sharedobject-in-library-directory-missing-soname "${debs[@]}" || fail "lintian finds errors"

dpkg_alone -i "${debs[@]}"
dpkg-query -L "${packages[@]}" >"$work/files"
! grep -v '^$' "$work/files" | xargs grep -slF "$source" || fail "that names the folder it was built in"

cd "$work"
/usr/bin/cowtop --version | grep -Fx "cowtop $(dpkg-query -W -f '${Version}' cowtop)"
/usr/bin/cowtop --json -o measured.json -- /usr/bin/python3 -c '
import os, time
data = bytearray(1 << 20)
if os.fork() == 0:
    for at in range(0, len(data), 4096): data[at] = 1
    time.sleep(0.5)  # for the backend that samples
    os._exit(0)
os.wait()'
/usr/bin/python3 -c '
import json
child = json.load(open("measured.json"))["processes"][1]
print("copied:", child["copied_bytes"])
assert child["copied_bytes"] >= 1 << 20'
/usr/bin/cowshed --version
/usr/bin/python3 -c 'import importlib.metadata; print(importlib.metadata.version("cowshed"))' | grep -Fx "$(cat "$source/VERSION")"
for page in cowtop cowtop-record cowshed cowshed-run; do
  man -w "$page" | grep -Fx "/usr/share/man/man1/$page.1.gz"
done
[ -e /usr/share/doc/cowtop/copyright ] || fail "no copyright"
[ -e /usr/share/cowtop/schemas/cowshed.run-2.json ] || fail "no schemas"
[ -e /usr/share/cowtop/grafana/cowtop.json ] || fail "no dashboard"
[ -e /usr/lib/systemd/system/cowtop.service ] || fail "no unit"
if command -v systemd-analyze >/dev/null; then systemd-analyze verify /usr/lib/systemd/system/cowtop.service; fi
if [ -e /usr/share/bash-completion/bash_completion ]; then
  bash -c '. /usr/share/bash-completion/bash_completion
           for program in cowtop cowshed; do _completion_loader $program || true; complete -p $program; done'
fi
cat >CMakeLists.txt <<'EOF'
cmake_minimum_required(VERSION 3.24)
project(User CXX)
find_package(Cowshed REQUIRED COMPONENTS share)
EOF
cmake -S . -B user -D CMAKE_CXX_COMPILER_WORKS=ON >cmake.log 2>&1 || fail "$(cat cmake.log)"
grep -q '^Cowshed_DIR:PATH=/usr/lib/cmake/Cowshed$' user/CMakeCache.txt || fail "another Cowshed was found"

remove
while IFS= read -r file; do
  # Folders that other packages have, too, stay.
  [ ! -e "$file" ] || dpkg-query -S "$file" >/dev/null 2>&1 || fail "left behind: $file"
done <files
