# Sourced by tests.sh: runs test programs of the build folder $build, and remembers what failed.
failed=''
output=${output:-/tmp/output}

# Whether each pattern of a filter, but for those after its "-", matches a test.
matches() { # matches PROGRAM FILTER
  all=0
  set -f
  IFS=:
  for pattern in ${2%%-*}; do
    if ! "$build/tests/$1" --gtest_list_tests --gtest_filter="$pattern" | grep -q '^  '; then
      echo "no test matches $pattern"
      all=1
    fi
  done
  unset IFS
  set +f
  return "$all"
}

run() { # run PROGRAM [FILTER]: without what only takes long, or is about the machine
  echo "-- $1"
  matches "$1" "${2:-*}" || failed="$failed $1(filter)"
  "$build/tests/$1" --gtest_brief=1 --gtest_filter="${2:-*}" >"$output" 2>&1 || failed="$failed $1"
  grep -vE '^([0-9]+$|ok: |Running main|\[=|\[  PASSED)' "$output"
  grep -E '^\[=' "$output"
  if grep -q '^\[  SKIPPED' "$output"; then
    failed="$failed $1(skipped)"
  fi
}

finish() { # fails when a test failed, or one was skipped that this kernel can run
  [ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
}
