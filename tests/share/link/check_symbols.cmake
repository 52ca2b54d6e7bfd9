# Fails when ARCHIVE defines a global symbol that another library could also define.
execute_process(COMMAND ${NM} --defined-only --extern-only --format=posix ${ARCHIVE}
                OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "[^\n]+" lines "${output}")
set(seen 0)
foreach(line IN LISTS lines)
  if(line MATCHES "^([^ ]+) [A-TX-Z] ") # strong ones; V and W are merged by the linker
    math(EXPR seen "${seen} + 1")
    set(symbol ${CMAKE_MATCH_1})
    if(NOT symbol MATCHES "cowshed")
      message(SEND_ERROR "${symbol} is global and not ours")
    endif()
  endif()
endforeach()
if(seen LESS 20)
  message(SEND_ERROR "only ${seen} symbols: nm's output was not understood")
endif()
