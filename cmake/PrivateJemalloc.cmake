# cowshed_private_jemalloc(PROGRAM SHARED): sets both to object files, made at build time from the
# system's libjemalloc_pic.a, in which every symbol carries our prefix and only the few we call are
# global.  So a program that links cowshed::share keeps its own malloc, be that libc's or another
# jemalloc.  PROGRAM is for executables.  SHARED is for shared objects: dlopen() has too little static
# TLS for the other one (share/jemalloc/jemalloc_tls.cc).
#
# The archive's C++ operators are left out, and its environment variable and /etc/malloc.conf are
# cut off: MALLOC_CONF configures the program's jemalloc, never ours.

function(cowshed_private_jemalloc program shared)
  find_library(COWSHED_JEMALLOC_PIC NAMES libjemalloc_pic.a
               DOC "jemalloc as a static library of position-independent code")
  if(NOT COWSHED_JEMALLOC_PIC)
    message(FATAL_ERROR "libjemalloc_pic.a was not found: install the package libjemalloc-dev")
  endif()
  add_executable(cowshed_private_jemalloc_tls jemalloc/jemalloc_tls.cc)
  cowshed_compile(cowshed_private_jemalloc_tls)
  set(objects ${CMAKE_CURRENT_BINARY_DIR}/private_jemalloc.o
              ${CMAKE_CURRENT_BINARY_DIR}/private_jemalloc_shared.o)
  set(script ${PROJECT_SOURCE_DIR}/cmake/PrivateJemallocObject.cmake)
  add_custom_command(
    OUTPUT ${objects}
    COMMAND ${CMAKE_COMMAND} -D ARCHIVE=${COWSHED_JEMALLOC_PIC} "-D OBJECTS=${objects}"
            -D AR=${CMAKE_AR} -D LD=${CMAKE_LINKER} -D NM=${CMAKE_NM} -D OBJCOPY=${CMAKE_OBJCOPY}
            -D CC=${CMAKE_C_COMPILER} -D TLS=$<TARGET_FILE:cowshed_private_jemalloc_tls> -P ${script}
    DEPENDS ${COWSHED_JEMALLOC_PIC} ${script} cowshed_private_jemalloc_tls
    COMMENT "Making private copies of jemalloc"
    VERBATIM)
  set_source_files_properties(${objects} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  list(GET objects 0 object)
  set(${program} ${object} PARENT_SCOPE)
  list(GET objects 1 object)
  set(${shared} ${object} PARENT_SCOPE)
endfunction()
