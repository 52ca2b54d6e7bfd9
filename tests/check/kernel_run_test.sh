#!/usr/bin/env bash
# That tools/kernel_vm/run.sh notices what fails, is skipped, or matches no test.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/tests"
# Has the tests Good, Bad and Skipped.
cat >"$folder/tests/program" <<'PROGRAM'
#!/bin/sh
for word; do
  case $word in
  --gtest_list_tests) lists=1 ;;
  --gtest_filter=*) filter=${word#*=} filter=${filter%%-*} ;;
  esac
done
if [ -n "$lists" ]; then
  case "$filter" in '*' | *Good* | *Bad* | *Skipped*) printf 'Suite.\n  %s\n' "$filter" ;; esac
  exit 0
fi
echo '[==========] some tests'
case "$filter" in *Skipped*) echo '[  SKIPPED ] Skipped' ;; esac
case "$filter" in *Bad*) exit 1 ;; esac
exit 0
PROGRAM
chmod +x "$folder/tests/program"

must() { # must STATUS FAILED FILTER
  local said status=0
  said=$(output=$folder/output sh -c '. "$1"; build=$2; run program "$3"; finish' - \
    "$SOURCE/tools/kernel_vm/run.sh" "$folder" "$3") || status=$?
  if [ "$status" -ne "$1" ] || [[ "$said" != *"$2"* ]]; then
    printf 'filter %s: status %s\n%s\n' "$3" "$status" "$said"
    exit 1
  fi
}
must 0 '' '*'
must 0 '' 'Good*:*Good-*Bad*'
must 1 'failed: program' 'Bad'
must 1 'failed: program(skipped)' 'Skipped'
must 1 'no test matches Misspelt*' 'Misspelt*'
must 1 'no test matches Misspelt' 'Good:Misspelt:*Good*-*Bad*'
