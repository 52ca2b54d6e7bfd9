# Fails when a function's static, of a library that forking programs link, has a lock that another
# thread may hold at a fork: it would stay locked in the child.  These are initialised under a mutex
# that is held over forks, in a process without other threads, or when the program is loaded.
set(ALLOWED "tables\\(\\)::made|of_process\\(\\)::own|adopt_for_ever\\(.*\\)::adopted|format_facet<std::locale>::id")
foreach(archive IN LISTS ARCHIVES)
  execute_process(COMMAND ${NM} -C ${archive} OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
  if(NOT said MATCHES "cowshed::")
    message(FATAL_ERROR "${archive}: nm's output was not understood")
  endif()
  string(REGEX MATCHALL "guard variable for [^\n]+" guards "${said}")
  foreach(guard IN LISTS guards)
    if(NOT guard MATCHES "::(${ALLOWED})$")
      message(SEND_ERROR "${archive}: ${guard}")
    endif()
  endforeach()
endforeach()
