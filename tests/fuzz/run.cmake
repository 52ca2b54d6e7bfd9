# cmake -D FUZZER=program -D SEEDS=folder -D WORK=folder -D SECONDS=n [-D MUST_FIND=ON] -P run.cmake:
# runs the fuzzer for so long; passes when it finds nothing, or, MUST_FIND, when it finds something
# from the seeds alone.  What it finds stays in WORK, and is tried first the next time.
if(MUST_FIND)
  file(REMOVE_RECURSE ${WORK})
endif()
file(MAKE_DIRECTORY ${WORK}/found ${WORK}/corpus)
execute_process(
  COMMAND ${FUZZER} -max_total_time=${SECONDS} -timeout=20 -rss_limit_mb=4096 -max_len=16384
          -print_final_stats=1 -artifact_prefix=${WORK}/found/ ${WORK}/corpus ${WORK}/found ${SEEDS}
  OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE result)
string(LENGTH "${output}" length)
if(length GREATER 6000)
  math(EXPR begin "${length} - 6000")
  string(SUBSTRING "${output}" ${begin} -1 output)
endif()
message(STATUS "${output}")
file(GLOB found ${WORK}/found/*)
if(MUST_FIND)
  if(NOT found)
    message(FATAL_ERROR "the seeded bug was not found in ${SECONDS} s")
  endif()
elseif(NOT result EQUAL 0)
  message(FATAL_ERROR "the fuzzer failed (${result}): ${found}")
endif()
