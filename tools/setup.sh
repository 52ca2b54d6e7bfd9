# Sourced by the tools that build: says what it does, installs what is missing, configures and builds.
. "$(dirname -- "${BASH_SOURCE[0]}")/sources.sh"
export DEBIAN_FRONTEND=noninteractive

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ] && [ "${TERM:-dumb}" != dumb ]; then bold=$'\e[1m' plain=$'\e[0m'; else bold='' plain=''; fi

# say STEP: begins a step, after the time that the last one took.
step='' step_began=0
say() {
  took
  step=$* step_began=$SECONDS
  printf '%s== %s%s\n' "$bold" "$*" "$plain"
}
took() {
  [ -z "$step" ] || printf '   %s: %d s\n' "$step" $((SECONDS - step_began))
  step=''
}
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

if [ "$(id -u)" -eq 0 ]; then
  root=()
elif command -v sudo >/dev/null; then
  root=(sudo)
else
  die "this needs root, or sudo: it installs packages and attaches probes to the kernel"
fi
as_root() { "${root[@]}" "$@"; }

machine() { # one line about the machine
  local frame
  frame=$(LD_SHOW_AUXV=1 /bin/true | sed -n 's/^AT_MINSIGSTKSZ: *//p')
  printf 'machine: %s, %d CPUs, signal frame %s B, Linux %s, %s MiB of memory, %s descriptors, %s\n' \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "${frame:-unknown}" \
    "$(uname -r)" $(($(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) / 1024)) "$(ulimit -n)" \
    "$(. /etc/os-release && printf '%s' "$PRETTY_NAME")"
}

installed() { # installed PACKAGE
  [ "$(dpkg-query -W -f '${Status}' "$1" 2>/dev/null)" = 'install ok installed' ]
}

# install_packages LIST...: the packages of tools/packages/LIST.
install_packages() {
  local line package missing=() log=build/packages.log
  while read -r line; do
    for package in ${line//|/ }; do
      if command -v dpkg-query >/dev/null && installed "$package"; then continue 2; fi
    done
    missing+=("$line")
  done < <(cd tools/packages && grep -hv '^#' "$@")
  if ! command -v apt-get >/dev/null; then
    printf 'This is not Debian: the packages that are needed, by their names there:\n%s\n' "${missing[*]}"
    printf 'Going on in the hope that they are installed.\n'
    return
  fi
  # The demo of tools/try reads the package lists.
  if [ ${#missing[@]} -eq 0 ] && { [ "$*" != try ] || compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; }; then return; fi
  say "installing ${#missing[@]} packages and those that they need"
  as_root apt-get update -q -o APT::Update::Error-Mode=any >"$log" 2>&1 ||
    die "the package lists cannot be fetched: is there a network? ($PWD/$log)"
  local wanted=() unknown=()
  for line in "${missing[@]}"; do
    for package in ${line//|/ }; do
      if [ -n "$(apt-cache show --no-all-versions "$package" 2>/dev/null)" ]; then
        wanted+=("$package")
        continue 2
      fi
    done
    unknown+=("${line//|/ or }")
  done
  [ ${#unknown[@]} = 0 ] ||
    die "packages that are not known here (needed: Debian 12 or 13, or these by other means): ${unknown[*]}"
  [ ${#wanted[@]} -gt 0 ] || return 0
  # Services that come with them are not started.
  local policy=/usr/sbin/policy-rc.d
  (
    if [ ! -e $policy ]; then
      trap 'as_root rm -f $policy' EXIT
      printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
      as_root chmod 755 $policy
    fi
    as_root apt-get install -y -q --no-install-recommends -o Dpkg::Options::=--force-unsafe-io \
      -o Dpkg::Use-Pty=0 "${wanted[@]}" >>"$log" 2>&1
  ) || { tail -5 "$log" >&2; die "installing the packages failed ($PWD/$log)"; }
}

build() { # build PRESET [TARGET...]
  local preset=$1
  shift
  say "building the $preset preset"
  if command -v ccache >/dev/null; then
    # Also for another clone: what differs there is where it lies.
    export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$PWD \
      CCACHE_NOHASHDIR=1 'CCACHE_IGNOREOPTIONS=-fmacro-prefix-map=*'
  fi
  cmake --preset "$preset" >"build/$preset.configure.log" 2>&1 ||
    { cat "build/$preset.configure.log"; rm -f "build/$preset/CMakeCache.txt"; die "configuring the $preset preset failed"; }
  # Progress on one line of a terminal, and nothing but failures elsewhere.
  if [ -t 1 ]; then
    cmake --build "build/$preset" ${1:+--target "$@"}
  else
    cmake --build "build/$preset" ${1:+--target "$@"} >"build/$preset.build.log" 2>&1 ||
      { grep -vE '^\[[0-9]+/[0-9]+\] ' "build/$preset.build.log" | head -200; die "building the $preset preset failed"; }
  fi
}

mkdir -p build
