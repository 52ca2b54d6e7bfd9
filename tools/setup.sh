# Sourced by try, check and bench: says what it does, and installs what is missing.
set -euo pipefail
unset CDPATH
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
export DEBIAN_FRONTEND=noninteractive

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi

say() { printf '%s== %s%s  [%d:%02d]\n' "$bold" "$*" "$plain" $((SECONDS / 60)) $((SECONDS % 60)); }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

if [ "$(id -u)" -eq 0 ]; then
  root=()
elif command -v sudo >/dev/null; then
  root=(sudo)
else
  die "this needs root, or sudo: it installs packages and attaches probes to the kernel"
fi
as_root() { "${root[@]}" "$@"; }

install_packages() {
  local package missing=()
  while read -r package; do
    case "$package" in '' | '#'*) continue ;; esac
    # `dpkg -s` also succeeds for a package that was removed but not purged.
    dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed' ||
      missing+=("$package")
  done <tools/packages
  if [ ${#missing[@]} -eq 0 ] && compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; then
    return
  fi
  say "apt-get update"
  as_root apt-get update -q
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    # The tests start what they need of Prometheus and PHP-FPM: the packages need not.
    local policy=/usr/sbin/policy-rc.d
    (
      if [ ! -e $policy ]; then
        trap 'as_root rm -f $policy' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod 755 $policy
      fi
      as_root apt-get install -y -q --no-install-recommends "${missing[@]}"
    )
  fi
}

build() { # build PRESET [TARGET...]
  local preset=$1
  shift
  say "building the $preset preset"
  cmake --preset "$preset" >"build/$preset.configure.log" 2>&1 ||
    { cat "build/$preset.configure.log"; die "configuring the $preset preset failed"; }
  cmake --build "build/$preset" ${1:+--target "$@"}
}

mkdir -p build
