# Installs the build in BUILD into a fresh prefix under WORK, builds the README's example against it
# from a folder of its own, as a user would, and runs it.
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK}/user)
file(COPY_FILE ${EXAMPLE} ${WORK}/user/main.cc)
file(COPY_FILE ${SOURCE}/full_channel.cc ${WORK}/user/full_channel.cc)
file(COPY_FILE ${SOURCE}/../link/scope_lands.cc ${WORK}/user/scope.cc)
foreach(file plugin.cc plugin_host.cc plugin_use.cc plugin_use.h)
  file(COPY_FILE ${SOURCE}/../link/${file} ${WORK}/user/${file})
endforeach()
file(COPY_FILE ${SOURCE}/user.cmake.in ${WORK}/user/CMakeLists.txt)
foreach(command "--install;${BUILD};--prefix;${WORK}/prefix"
                "-G;${GENERATOR};-S;${WORK}/user;-B;${WORK}/build;-DCMAKE_PREFIX_PATH=${WORK}/prefix"
                "--build;${WORK}/build")
  execute_process(COMMAND ${CMAKE_COMMAND} ${command} OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
endforeach()
set(ENV{PKG_CONFIG_PATH} ${WORK}/prefix/lib/pkgconfig)
execute_process(COMMAND sh -c "c++ -std=c++20 main.cc $(pkg-config --cflags --libs cowshed) -o by_pkg_config"
                WORKING_DIRECTORY ${WORK}/user COMMAND_ERROR_IS_FATAL ANY)
foreach(user build/user user/by_pkg_config)
  execute_process(COMMAND ${WORK}/${user} OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
  foreach(rank RANGE 3)
    if(NOT said MATCHES "worker ${rank}: the answer is 42")
      message(FATAL_ERROR "the example said: ${said}")
    endif()
  endforeach()
endforeach()
execute_process(COMMAND ${WORK}/build/full_channel TIMEOUT 60 COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND sh -c "c++ -std=c++20 scope.cc $(pkg-config --cflags --libs cowshed-malloc) -o scope_by_pkg_config"
                WORKING_DIRECTORY ${WORK}/user COMMAND_ERROR_IS_FATAL ANY)
foreach(scope build/scope user/scope_by_pkg_config)
  execute_process(COMMAND ${WORK}/${scope} OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
  if(NOT said MATCHES "^entered: all in the arena")
    message(FATAL_ERROR "${scope}, with cowshed::malloc: ${said}")
  endif()
endforeach()
execute_process(COMMAND ${WORK}/build/plugin_host ${WORK}/build/libplugin.so OUTPUT_VARIABLE said
                COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND ${CMAKE_COMMAND} --build ${WORK}/build --target debug_mode
                RESULT_VARIABLE status OUTPUT_VARIABLE said ERROR_VARIABLE said)
if(status EQUAL 0 OR NOT said MATCHES "cowshed_must_be_built_with_GLIBCXX_DEBUG_too")
  message(FATAL_ERROR "with _GLIBCXX_DEBUG: status ${status}, ${said}")
endif()
execute_process(COMMAND ${CMAKE_COMMAND} -D MALLOC_IN_A_MODULE=ON ${WORK}/build
                RESULT_VARIABLE status OUTPUT_QUIET ERROR_VARIABLE said)
if(status EQUAL 0 OR NOT said MATCHES "cowshed::malloc_belongs_in_the_executable")
  message(FATAL_ERROR "with cowshed::malloc in a MODULE: status ${status}, ${said}")
endif()
file(REMOVE_RECURSE ${WORK})
