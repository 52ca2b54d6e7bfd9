# cmake -D "COMMAND=program;argument..." -D SAYS=regex [-D FAILS=ON] -P expect.cmake: runs it; passes
# when it exits with 0 (FAILS: with anything else) and what it prints, standard error with it,
# matches.  PASS_REGULAR_EXPRESSION alone does not look at the exit status.
execute_process(COMMAND ${COMMAND} OUTPUT_VARIABLE said ERROR_VARIABLE said RESULT_VARIABLE result)
message(STATUS "${said}")
if(FAILS AND result EQUAL 0)
  message(FATAL_ERROR "it should have failed")
elseif(NOT FAILS AND NOT result EQUAL 0)
  message(FATAL_ERROR "it failed: ${result}")
elseif(NOT said MATCHES "${SAYS}")
  message(FATAL_ERROR "it did not say ${SAYS}")
endif()
