# Installs the build in BUILD into a fresh prefix under WORK, builds main.cc against it from a
# folder of its own, as a user would, and runs it.
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK}/user)
file(COPY_FILE ${SOURCE}/main.cc ${WORK}/user/main.cc)
file(COPY_FILE ${SOURCE}/user.cmake.in ${WORK}/user/CMakeLists.txt)
foreach(command "--install;${BUILD};--prefix;${WORK}/prefix"
                "-S;${WORK}/user;-B;${WORK}/build;-DCMAKE_PREFIX_PATH=${WORK}/prefix"
                "--build;${WORK}/build")
  execute_process(COMMAND ${CMAKE_COMMAND} ${command} OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
endforeach()
execute_process(COMMAND ${WORK}/build/user COMMAND_ERROR_IS_FATAL ANY)
file(REMOVE_RECURSE ${WORK})
