#!/usr/bin/env bash
# That tools/setup.sh waits for apt's lock, looks at the disk, and says how a build goes and why it failed.
# apt-get, df and cmake are scripts of this test.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder/tools/packages" "$folder/bin"
cp "$SOURCE/tools/sources.sh" "$SOURCE/tools/setup.sh" "$folder/tools"
printf 'no-such-package-of-debian\n' >"$folder/tools/packages/try"

fake() { # fake PROGRAM: of what standard input says
  { echo '#!/usr/bin/env bash'; cat; } >"$folder/bin/$1"
  chmod 755 "$folder/bin/$1"
}
fake sudo <<<'exec "$@"' # where this test is not root
fake apt-cache <<<'echo Package: "$3"'

# after SCRIPT: what it prints once setup.sh is sourced.  As root it does apt-get alone, and each sleep is
# said to have taken a minute.
after() {
  PATH=$folder/bin:$PATH bash -c '
    . "$0"/tools/setup.sh
    as_root() { case $1 in env) "$@" ;; tee) cat >/dev/null ;; esac; }
    sleep() { SECONDS=$((SECONDS + 60)); }
    eval "$1"' "$folder" "$1" 2>&1
}
must() { # must pass|fail SCRIPT TEXT...: it prints these texts, the last of them in its last line
  local outcome=pass said text
  said=$(after "$2") || outcome=fail
  for text in "${@:3}"; do [[ $said = *"$text"* ]] || outcome="without '$text'"; done
  [[ ${said##*$'\n'} = *"${*: -1}"* ]] || outcome="without '${*: -1}' at its end"
  [ "$outcome" = "$1" ] || { printf '%s: %s\n%s\n' "$2" "$outcome" "$said"; exit 1; }
}

fake apt-get <<'EOT'
echo "$@" >>calls
[ -s failures ] || exit 0
cat failures
sed -i 1d left && [ -s left ] || rm failures
exit 100
EOT
refuse() { # refuse TIMES TEXT: so often apt-get fails with that
  printf '%s\n' "$2" >"$folder/failures"
  seq "$1" >"$folder/left"
  rm -f "$folder/calls"
}
lock='E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4711 (unattended-upgr)'
refuse 1 "$lock"
must pass 'install_packages try' "waiting up to two minutes for another program: $lock"
[ "$(grep -c update "$folder/calls"; grep -c 'install.* no-such-package-of-debian' "$folder/calls")" = $'2\n1' ] ||
  { cat "$folder/calls"; exit 1; }
refuse 1000 "$lock"
must fail 'install_packages try' "$lock"
[ "$(wc -l <"$folder/calls")" = 3 ] || { cat "$folder/calls"; exit 1; }
refuse 1 "E: The repository 'http://example.org trixie Release' does not have a Release file."
must fail 'install_packages try' "the package lists cannot be fetched: E: The repository 'http://example.org"

fake df <<'EOT'
case $* in *target*) printf 'Mounted on\n/data\n' ;; *) printf 'Avail\n 1000\n' ;; esac
EOT
must pass 'disk[packages/try]=600 disk[build/try]=400; need_disk packages/try build/try' \
  'disk: this needs some 1000 MiB of /data, where 1000 MiB are free'
must fail 'disk[packages/try]=600 disk[build/try]=401; need_disk packages/try build/try' \
  'error: too little disk: /data has 1000 MiB free of the 1001 that this needs'

fake cmake <<'EOT'
[ "$1" = --build ] || exit 0
printf '[1/3] Building one\n[2/3] Building two\n'
[ -e crash ] || exit 0
printf 'FAILED: two\n%s\n%s\n%s\n' 'fatal error: error in backend: IO failure on output stream: No space left on device' \
  'PLEASE submit a bug report to https://bugs.debian.org/' 'Stack dump:'
printf '0.\tProgram arguments: clang two.cc\n #0 0x00007f8 llvm::sys::PrintStackTrace\n[3/3] Building three\n'
exit 1
EOT
must pass 'follow_every=0; build try' '1 of 3 steps in ' '2 of 3 steps in '
touch "$folder/crash"
must fail 'build try' 'FAILED: two' 'failed: fatal error: error in backend: IO failure on output stream: No space left on device'
[[ $(after 'build try' || true) != *PrintStackTrace* ]] || { echo "it prints the compiler's stack"; exit 1; }
