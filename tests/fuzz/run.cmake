# cmake -D FUZZER=program -D SEEDS=folder -D WORK=folder -D SECONDS=n [-D WITHOUT=program] -P run.cmake:
# runs the fuzzer for so long.  Passes when it has run and found nothing; or, WITHOUT, when from the
# seeds alone it finds an input that fails it again, and does not fail the fuzzer WITHOUT the seeded
# bug: a slow unit, or one of another bug, is none.  What it finds stays in WORK, and is tried first
# the next time.
set(usual -timeout=20 -rss_limit_mb=4096)
if(WITHOUT)
  file(REMOVE_RECURSE ${WORK})
endif()
file(MAKE_DIRECTORY ${WORK}/found ${WORK}/corpus)
execute_process(
  COMMAND ${FUZZER} -max_total_time=${SECONDS} ${usual} -max_len=16384
          -print_final_stats=1 -artifact_prefix=${WORK}/found/ ${WORK}/corpus ${WORK}/found ${SEEDS}
  OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE result)
string(LENGTH "${output}" length)
if(length GREATER 6000)
  math(EXPR begin "${length} - 6000")
  string(SUBSTRING "${output}" ${begin} -1 output)
endif()
message(STATUS "${output}")
file(GLOB found ${WORK}/found/*)
if(NOT WITHOUT)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "the fuzzer failed (${result}): ${found}")
  elseif(NOT output MATCHES "stat::number_of_executed_units: +[0-9][0-9][0-9]")
    message(FATAL_ERROR "the fuzzer ran less than 100 inputs")
  endif()
  return()
endif()
# Several times: with other addresses the same write past the end may hit mapped memory.
foreach(input IN LISTS found)
  foreach(attempt RANGE 1 5)
    foreach(program FUZZER WITHOUT)
      execute_process(COMMAND ${${program}} ${usual} -artifact_prefix=${WORK}/again- ${input}
                      OUTPUT_QUIET ERROR_QUIET RESULT_VARIABLE ${program}_result)
    endforeach()
    if(NOT FUZZER_result EQUAL 0 AND WITHOUT_result EQUAL 0)
      message(STATUS "found by ${input}")
      return()
    endif()
  endforeach()
endforeach()
message(FATAL_ERROR "the seeded bug was not found in ${SECONDS} s; what was: ${found}")
