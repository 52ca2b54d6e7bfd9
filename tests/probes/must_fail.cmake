# cmake -D TEST=program -D FILTER=pattern -P must_fail.cmake: passes when the tests fail by their
# own assertions.  A crash, or tests that were skipped or not found, prove nothing.
execute_process(COMMAND ${TEST} --gtest_filter=${FILTER} OUTPUT_VARIABLE output
                ERROR_VARIABLE output RESULT_VARIABLE result)
if(output MATCHES "\\[  SKIPPED \\]")
  message(STATUS "SKIPPED: this machine cannot run the probes")
elseif(NOT result EQUAL 1 OR NOT output MATCHES ": Failure\n" OR NOT output MATCHES "FAILED TEST")
  message(FATAL_ERROR "the tests did not notice the fault (result ${result}):\n${output}")
endif()
