#!/usr/bin/env python3
"""gate.py BUILD [OTHER]: prints a shell script that runs the gate's tests of BUILD in a guest, each in a
process of its own.  It leaves out what needs bash, cmake or python3, which a guest does not have.  OTHER is
a build for another CPU, whose programs run instead: those of base, share and cow, which are all that it has."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

ELSEWHERE_LEFT_OUT = (
    "CodeReaderProcessOf.AName", "CodeReaderProcessOf.ALongName",  # take this machine's objcopy
    "TreeMemoryTest.",  # reads memory by the clock, and the guest's programs lie in memory themselves
)
build = Path(sys.argv[1]).resolve()
there = Path(sys.argv[-1]).resolve()
listed = subprocess.run(
    ["ctest", "--test-dir", build, "--show-only=json-v1"], check=True, capture_output=True, text=True
)
print(f"""failed=''
test_case() {{ # test_case NAME COMMAND...: an emulated CPU takes ten times as long
  name=$1
  shift
  if {shlex.quote(str(there / "tests/deadline"))} 900 "$@" >/tmp/output 2>&1; then
    ! grep -q 'SKIPPED' /tmp/output || {{ echo "skipped: $name"; grep -A1 ': Skipped' /tmp/output; }}
  else
    echo "FAILED: $name"
    cat /tmp/output
    failed="$failed $name"
  fi
}}
export TMPDIR=/tmp TERM=dumb TZ=UTC""")
count = 0
for test in json.loads(listed.stdout)["tests"]:
    _deadline, _seconds, *command = test["command"]
    if not Path(command[0]).is_relative_to(build) or test["name"].startswith("VerdictTest.Junit"):
        continue
    if there != build and Path(command[0]).relative_to(build).parts[1] not in ("base", "share", "cow"):
        continue
    if there != build and test["name"].startswith(ELSEWHERE_LEFT_OUT):
        continue
    command = [word.replace(str(build), str(there)) for word in command]
    if not Path(command[0]).exists():
        sys.exit(f"gate.py: {command[0]} is not there")
    print(f"test_case {shlex.join([test['name'], *command])}")
    count += 1
print(f"""echo "{count} tests of the gate, failed: ${{failed:-none}}"
[ -z "$failed" ]""")
