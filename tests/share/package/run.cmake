# Installs the build in BUILD into a fresh prefix under WORK, builds the README's example against it
# from a folder of its own, as a user would, and runs it.
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK}/user)
file(COPY_FILE ${EXAMPLE} ${WORK}/user/main.cc)
file(COPY_FILE ${SOURCE}/user.cmake.in ${WORK}/user/CMakeLists.txt)
foreach(command "--install;${BUILD};--prefix;${WORK}/prefix"
                "-G;${GENERATOR};-S;${WORK}/user;-B;${WORK}/build;-DCMAKE_PREFIX_PATH=${WORK}/prefix"
                "--build;${WORK}/build")
  execute_process(COMMAND ${CMAKE_COMMAND} ${command} OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
endforeach()
execute_process(COMMAND ${WORK}/build/user OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
foreach(rank RANGE 3)
  if(NOT said MATCHES "worker ${rank}: the answer is 42")
    message(FATAL_ERROR "the example said: ${said}")
  endif()
endforeach()
file(READ ${EXAMPLE} example)
file(READ ${README} readme)
string(FIND "${readme}" "${example}" where)
if(where EQUAL -1)
  message(FATAL_ERROR "the README does not show ${EXAMPLE} as it is")
endif()
file(REMOVE_RECURSE ${WORK})
