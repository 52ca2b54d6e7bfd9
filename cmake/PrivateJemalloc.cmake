# cowshed_private_jemalloc(OUT): sets OUT to an object file, made at build time from the system's
# libjemalloc_pic.a, in which every symbol carries our prefix and only the few we call are global.
# So a program that links cowshed::share keeps its own malloc, be that libc's or another jemalloc.
#
# The archive's C++ operators are left out, and its environment variable and /etc/malloc.conf are
# cut off: MALLOC_CONF configures the program's jemalloc, never ours.

function(cowshed_private_jemalloc out)
  find_library(COWSHED_JEMALLOC_PIC NAMES libjemalloc_pic.a
               DOC "jemalloc as a static library of position-independent code")
  if(NOT COWSHED_JEMALLOC_PIC)
    message(FATAL_ERROR "libjemalloc_pic.a was not found: install the package libjemalloc-dev")
  endif()
  set(object ${CMAKE_CURRENT_BINARY_DIR}/private_jemalloc.o)
  set(script ${PROJECT_SOURCE_DIR}/cmake/PrivateJemallocObject.cmake)
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${CMAKE_COMMAND} -D ARCHIVE=${COWSHED_JEMALLOC_PIC} -D OBJECT=${object}
            -D AR=${CMAKE_AR} -D LD=${CMAKE_LINKER} -D NM=${CMAKE_NM} -D OBJCOPY=${CMAKE_OBJCOPY}
            -P ${script}
    DEPENDS ${COWSHED_JEMALLOC_PIC} ${script}
    COMMENT "Making a private copy of jemalloc"
    VERBATIM)
  set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  set(${out} ${object} PARENT_SCOPE)
endfunction()
