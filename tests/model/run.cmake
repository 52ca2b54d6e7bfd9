# cmake -D SPIN=program -D CC=compiler -D MODEL=file -D DEFINITIONS=list -D WORK=folder -P run.cmake:
# passes when spin has searched all states and found no error.  `pan` itself exits with 0 either way.
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
function(run)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${WORK} OUTPUT_VARIABLE output
                  ERROR_VARIABLE output RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${ARGN}: ${result}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()
run(${SPIN} ${DEFINITIONS} -a ${MODEL})
run(${CC} -O1 -DSAFETY -DCOLLAPSE -DMEMLIM=3000 -o pan pan.c)
run(./pan -m100000)
message(STATUS "${output}")
if(output MATCHES "pan:1: ([^\n]*)" AND NOT output MATCHES "max search depth|out of memory|VECTORSZ")
  execute_process(COMMAND ${SPIN} ${DEFINITIONS} -t -p -u2000 ${MODEL} WORKING_DIRECTORY ${WORK}
                  OUTPUT_VARIABLE trail ERROR_VARIABLE trail)
  message(FATAL_ERROR "the model is wrong: ${CMAKE_MATCH_1}\n${trail}")
elseif(NOT output MATCHES "errors: 0" OR output MATCHES "Search not completed|max search depth")
  message(FATAL_ERROR "spin has not searched all states")
endif()
