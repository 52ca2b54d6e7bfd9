#!/bin/sh
# tests.sh BUILD [alone]: what depends on the kernel and is not in the gate, one program after the
# other, in the guest.
# Fails when a test fails, or one is skipped that this kernel can run.
build=$1
. "$(dirname "$0")/run.sh"

# The sampled backend sees too little in a guest that waits for a CPU, so it runs without the other.
if [ "${2:-}" = alone ]; then
  uname -r
  run cow/cow_test '*/pagemap'
  finish
  exit
fi

export COWSHED_EXPECT_FENTRY=1 # an oracle that the host may lack
export COWSHED_MAY_SET_SYSCTLS=1
uname -r
at_end='-*AtItsEndAProcessHas*' # these kernels free a process's memory before they say that it ends: 6.16
case $(uname -r) in
6.1.*)
  absent='-*/folio_*:*/guarded_*'
  echo "not run: folio_* (smaller huge pages than 2 MiB came with 6.8), guarded_* (6.13)"
  ;;
6.12.*)
  absent='-*/guarded_*'
  echo "not run: guarded_* (guard pages came with 6.13)"
  ;;
*) absent='' at_end='*' ;; # newer: nothing
esac
export COWSHED_FAULTS=100000 # of the emulated CPUs' million
run probes/ground_truth_test "*_1000:*/anon_copied_20000:*/kernel_copied_20000:GroundTruth.*:$absent"
run probes/fork_costs_test
run probes/lineage_test "$at_end"
run probes/loader_test
run probes/samples_test
run probes/storm_test
run cow/cow_test '-*/pagemap:*NamedPatterns*:DebugFile.*:PythonLinesOfCPython.*:*AThousandChildren:Profile.MeasuringCopiesNothing:*HaveAThreshold*:*TopCannotBeTrimmed'
# In processes of their own, as ctest has them: what other tests left would be measured.
run cow/cow_test 'Profile.MeasuringCopiesNothing'
run cow/cow_test 'GlibcHeap.*HaveAThreshold*'
run cow/cow_test 'GlibcHeap.*TopCannotBeTrimmed'
run cow/meter_objects_test '-*AsTheDocumentationHasIt' # the sources stay here
run tools/cowtop_program_test 'CowtopCgroup.*:CowtopOutOfMemory.*:CowtopPrivilege.*:CowtopDetach.*-*ASetUserIdProgram*' # mostly sleeps
# As root against a strictly frozen arena alone: the other two kinds are tried as nobody, and by both
# users on the host.
run share/hostile_child_test '-*Leniently*/Caller:*NotFrozen/Caller'
run share/memory_shortage_test
run base/memory_test
COWSHED_MAY_LOCK_DOWN=1 run tools/cowtop_program_test 'CowtopLockdown.*' # last: no kernel unlocks
finish
