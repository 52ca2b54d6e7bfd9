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

missing() { # missing LIST...: the lines of tools/packages/LIST of which no package is installed
  local line package
  while read -r line; do
    for package in ${line//|/ }; do
      if command -v dpkg-query >/dev/null && installed "$package"; then continue 2; fi
    done
    printf '%s\n' "$line"
  done < <(cd tools/packages && grep -hv '^#' "$@")
}

# MiB of disk: of a list's packages on a fresh Debian, installed and as downloaded, and of a build with
# what is made of it.
declare -A disk=([packages/try]=800 [packages/install]=400 [packages/check]=250
  [build/try]=150 [build/install]=250 [build/check]=800)

# need_disk packages/LIST|build/PRESET...: says what they need of the disk, and ends here if it is not free.
need_disk() {
  local each where mib have mount free
  local -A needed=()
  for each in "$@"; do
    where=. mib=${disk[$each]}
    if [ "${each%/*}" = packages ]; then
      where=/usr
      [ -n "$(missing "${each#*/}")" ] || mib=0
    else
      have=$(du -sm "$each" 2>/dev/null | cut -f1) || have=0
      mib=$((mib > have ? mib - have : 0))
    fi
    mount=$(df --output=target "$where" | tail -1)
    [ "$mib" = 0 ] || needed[$mount]=$((${needed[$mount]:-0} + mib))
  done
  for mount in "${!needed[@]}"; do
    mib=${needed[$mount]} free=$(($(df -m --output=avail "$mount" | tail -1)))
    printf 'disk: this needs some %d MiB of %s, where %d MiB are free\n' "$mib" "$mount" "$free"
    [ "$free" -ge "$mib" ] || die "too little disk: $mount has $free MiB free of the $mib that this needs; make room"
  done
}

# apt_get ARGUMENT...: its output goes to $apt_log.  Waits two minutes while another program has apt's or
# dpkg's lock.
apt_log=build/packages.log
apt_get() {
  local deadline=$((SECONDS + 120)) lock='' waited=''
  # sudo passes no variables on.
  until as_root env LC_ALL=C.UTF-8 DEBIAN_FRONTEND="$DEBIAN_FRONTEND" apt-get -q "$@" >"$apt_log" 2>&1; do
    lock=$(grep -m1 -E 'Could not get lock|lock was locked by another process' "$apt_log") || return 1
    [ "$SECONDS" -lt "$deadline" ] || return 1
    [ -n "$waited" ] || printf '   waiting up to two minutes for another program: %s\n' "$lock"
    waited=yes
    sleep 1
  done
}
apt_error() { # why apt_get failed
  printf '%s (%s)' "$(grep -m1 -E '^(E|dpkg): ' "$apt_log" || tail -1 "$apt_log")" "$PWD/$apt_log"
}

install_packages() { # install_packages LIST...: what is missing of tools/packages/LIST
  local line package missing
  mapfile -t missing < <(missing "$@")
  if ! command -v apt-get >/dev/null; then
    printf 'This is not Debian: the packages that are needed, by their names there:\n%s\n' "${missing[*]}"
    printf 'Going on in the hope that they are installed.\n'
    return
  fi
  # The demo of tools/try reads the package lists.
  if [ ${#missing[@]} -eq 0 ] && { [ "$*" != try ] || compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; }; then return; fi
  say "installing ${#missing[@]} packages and those that they need"
  apt_get update -o APT::Update::Error-Mode=any || die "the package lists cannot be fetched: $(apt_error)"
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
    apt_get install -y --no-install-recommends -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Use-Pty=0 "${wanted[@]}"
  ) || die "installing the packages failed: $(apt_error)"
}

# follow LOG: writes what a build prints to LOG and says how far it is: on one line of a terminal, and
# every 30 s elsewhere.
follow_every=30
follow() {
  local line began=$SECONDS next=$((SECONDS + follow_every)) columns
  columns=$(tput cols 2>/dev/null || echo 80)
  while IFS= read -r line; do
    printf '%s\n' "$line" >&3
    [[ $line =~ ^\[([0-9]+)/([0-9]+)\]\  ]] || continue
    if [ -t 1 ]; then
      printf '\r\e[K%s' "${line:0:columns-1}"
    elif [ "$SECONDS" -ge "$next" ]; then
      printf '   %d of %d steps in %d s\n' "${BASH_REMATCH[1]}" "${BASH_REMATCH[2]}" $((SECONDS - began))
      next=$((SECONDS + follow_every))
    fi
  done 3>"$1"
  [ ! -t 1 ] || printf '\r\e[K'
}

use_ccache() { # where there is one
  command -v ccache >/dev/null || return 0
  # Also for another clone: what differs there is where it lies.
  export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$PWD \
    CCACHE_NOHASHDIR=1 'CCACHE_IGNOREOPTIONS=-fmacro-prefix-map=*'
}

build() { # build PRESET [TARGET...]
  local preset=$1 log=build/$1.build.log
  shift
  say "building the $preset preset"
  use_ccache
  local clang=()
  [ "$(clang_version)" = 19 ] ||
    ! sed -n "/\"name\": \"$preset\"/,/^    }/p" CMakePresets.json | grep -qE '"inherits": "(clang|check)"' ||
    clang=("-DCMAKE_C_COMPILER=clang-$(clang_version)" "-DCMAKE_CXX_COMPILER=clang++-$(clang_version)")
  cmake --preset "$preset" "${clang[@]}" >"build/$preset.configure.log" 2>&1 ||
    { cat "build/$preset.configure.log"; rm -f "build/$preset/CMakeCache.txt"; die "configuring the $preset preset failed"; }
  cmake --build "build/$preset" ${1:+--target "$@"} 2>&1 | follow "$log" || {
    # Without the steps, and without the stack of a compiler that crashed.
    sed -E '/^\[[0-9]+\/[0-9]+\] |^ *#[0-9]+ |^[0-9]+\.\s|^Stack dump|^PLEASE submit/d' "$log" | awk 'NR <= 200'
    die "building the $preset preset failed: $(grep -v '^collect2: ' "$log" | grep -m1 -iE "error: |undefined reference|cannot find -l|no space left|(^|: )killed" ||
      tail -1 "$log") ($PWD/$log)"
  }
}

mkdir -p build
