# cmake -D TEST=program -D MUTANT=object -D FILTER=pattern -P must_fail.cmake: passes when the tests
# fail by their own assertions, and says which.  A crash, or tests that were not found, or programs
# that the kernel does not load, prove nothing.
set(ENV{COWSHED_MUTANT} ${MUTANT})
execute_process(COMMAND ${TEST} --gtest_filter=${FILTER} OUTPUT_VARIABLE output
                ERROR_VARIABLE output RESULT_VARIABLE result)
string(REGEX MATCHALL "\n\\[  FAILED  \\] [A-Za-z/.]+[A-Za-z_0-9]+ \\(|\n\\[  FAILED  \\] [^ ,\n]+, where[^\n]*ms\\)" rows "${output}")
if(NOT result EQUAL 0 AND output MATCHES "loading the BPF programs|opening the BPF programs")
  message(FATAL_ERROR "the mutant is no program:\n${output}")
elseif(result EQUAL 1 AND output MATCHES ": Failure\n" AND rows)
  string(REGEX REPLACE "\n\\[  FAILED  \\] ([^ ,]+)[^\n;]*" "\\1" rows "${rows}")
  string(REPLACE "GroundTruth/EveryKind.IsCountedExactly/" "" rows "${rows}")
  message(STATUS "caught by ${rows}")
elseif(output MATCHES "\\[  SKIPPED \\]")
  message(STATUS "SKIPPED: this machine cannot run the probes, or what would notice")
else()
  message(FATAL_ERROR "the tests did not notice the fault (result ${result}):\n${output}")
endif()
