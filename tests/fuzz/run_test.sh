#!/usr/bin/env bash
# run_test.sh CMAKE RUN_CMAKE: that run.cmake tells the seeded bug from anything else that is found.
set -euo pipefail
cmake=$1 run=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/seeds"

# fuzzer NAME FINDS FAILS_ON UNITS: a program that as a fuzzer writes the artefact FINDS, if any, and
# on a single input exits with 1 where its name contains FAILS_ON.
fuzzer() {
  cat >"$folder/$1" <<PROGRAM
#!/bin/sh
for word; do
  case \$word in
  -artifact_prefix=*) prefix=\${word#*=} ;;
  -max_total_time=*) fuzzes=1 ;;
  esac
done
if [ -z "\$fuzzes" ]; then
  case \$word in *$3*) exit 1 ;; esac
  exit 0
fi
echo "stat::number_of_executed_units: $4"
[ -z "$2" ] || { touch "\${prefix}$2"; exit 77; }
exit 0
PROGRAM
  chmod +x "$folder/$1"
}

must() { # must pass|fail NAME [WITHOUT]
  local outcome=pass
  "$cmake" -D "FUZZER=$folder/$2" ${3:+-D "WITHOUT=$folder/$3"} -D "SEEDS=$folder/seeds" -D SECONDS=1 \
    -D "WORK=$folder/work" -P "$run" >"$folder/output" 2>&1 || outcome=fail
  rm -rf "$folder/work"
  [ "$outcome" = "$1" ] && return
  cat "$folder/output"
  echo "$2 ${3:-}: $outcome"
  exit 1
}
fuzzer plain '' nothing 5000
fuzzer idle '' nothing 12
fuzzer broken crash-1 crash 5000
fuzzer mutant crash-1 crash 5000
fuzzer slow slow-unit-1 crash 5000
must pass plain
must fail idle
must fail broken
must pass mutant plain
must fail slow plain    # it was only slow
must fail mutant broken # the bug is there without the seed
must fail plain plain
