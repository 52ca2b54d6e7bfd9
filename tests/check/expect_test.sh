#!/usr/bin/env bash
# That tests/support/expect.cmake looks at the exit status and at the output.
set -euo pipefail

must() { # must pass|fail COMMAND SAYS [FAILS]
  local outcome=pass
  cmake -D "COMMAND=$2" -D "SAYS=$3" -D "FAILS=${4:-OFF}" -P "$SOURCE/tests/support/expect.cmake" \
    >/dev/null 2>&1 || outcome=fail
  [ "$outcome" = "$1" ] || { echo "$2, says $3, fails ${4:-OFF}: $outcome"; exit 1; }
}
must pass 'echo;yes' '^yes'
must fail 'echo;yes' 'no'
must fail 'sh;-c;echo yes && exit 3' 'yes'
must fail 'sh;-c;echo yes && kill -9 $$' 'yes'
must pass 'sh;-c;echo yes >&2 && exit 3' 'yes' ON
must fail 'echo;yes' 'yes' ON
must fail '/no/such/program' 'yes'
