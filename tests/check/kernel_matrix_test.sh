#!/usr/bin/env bash
# That tools/kernel_matrix runs each kernel once, and that its table hides no kernel and no failure.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder"/{tools/kernel_vm,gate/tests/support,build/tests/support,tests/tools}
touch "$folder"/{gate,build}/CMakeCache.txt
cp "$SOURCE/tools/kernel_matrix" "$folder/tools"
cp "$SOURCE/tools/kernel_vm/tests.sh" "$folder/tools/kernel_vm"
echo 'print()' >"$folder/tools/kernel_vm/gate.py"
# A machine that fails with the arguments $FAILS, and prints what it was asked to run on which kernel.
cat >"$folder/tools/kernel_vm/run" <<'EOT'
#!/bin/sh
echo "$2: ${*##*/}"
case "$2 $*" in $FAILS) exit 1 ;; esac
EOT
chmod +x "$folder/tools/kernel_vm/run"

options=
must() { # must STATUS KERNELS FAILS PATTERN...: what kernels.py prints, and what the matrix does
  local said status=0 pattern
  printf 'print("""%s""")\n' "$2" >"$folder/tools/kernel_vm/kernels.py"
  said=$(FAILS=$3 "$folder/tools/kernel_matrix" $options "$folder/gate" "$folder/build" 2>&1) || status=$?
  for pattern in "${@:4}"; do
    if [ "$status" -ne "$1" ] || ! grep -qE -- "$pattern" <<<"$said"; then
      printf 'status %s, and no line matches "%s":\n%s\n' "$status" "$pattern" "$said"
      exit 1
    fi
  done
}
kernels='6.1 6.1.0-50
7.1 7.1.13+deb13
new 7.3.4+deb13
rc 7.3-cloud'
must 0 "$kernels" none \
  '^6\.1 +6\.1\.0-50 +passed, 0 min +passed, 0 min +passed, 0 min$' \
  '^7\.1 +7\.1\.13\+deb13 +- +passed, 0 min +passed, 0 min$' \
  '^new +7\.3\.4\+deb13 +passed, 0 min +passed, 0 min +passed, 0 min$' \
  '^rc +7\.3-cloud +- +passed'
must 1 "$kernels" '7.1*alone' '^7\.1 +7\.1\.13\+deb13 +- +passed, 0 min +FAILED, 0 min$'
must 1 "$kernels" '6.1*gate.sh' '^6\.1 +6\.1\.0-50 +FAILED, 0 min +passed, 0 min +passed'
must 0 "$kernels"$'\nlatest 7.3.4+deb13' none \
  '^kernel_matrix: latest is .*the same as new$' '^latest +7\.3\.4\+deb13: the same as new$'
must 0 $'6.1 6.1.0-50\ntesting - apt has none' none '^kernel_matrix: testing is not available: apt has none$' \
  '^testing +not available: apt has none$' '^6\.1 +6\.1\.0-50 +passed'
must 1 '7.1 - apt has none' none '^7\.1 +not available: apt has none$'
options='--arch arm64' # the gate's tests alone
must 0 "$kernels" none '^6\.1 +6\.1\.0-50 +passed, 0 min +- +-$' '^rc +7\.3-cloud +- +- +-$'
