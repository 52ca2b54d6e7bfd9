# cowshed_private_jemalloc(OBJECT): sets OBJECT to an object file of jemalloc 5.3.0 in which only
# cowshed_je_* is global.  So a program that links cowshed::share keeps its own malloc, be that libc's or
# another jemalloc.

function(cowshed_private_jemalloc object)
  set(COWSHED_JEMALLOC "" CACHE PATH "The sources of jemalloc 5.3.0, a folder or an archive; empty: download them")
  if(NOT COWSHED_JEMALLOC)
    set_property(CACHE COWSHED_JEMALLOC PROPERTY VALUE "$ENV{COWSHED_JEMALLOC}")
  endif()
  set(inputs ${PROJECT_SOURCE_DIR}/cmake/private_jemalloc ${PROJECT_SOURCE_DIR}/share/jemalloc/private_jemalloc.c
             ${PROJECT_SOURCE_DIR}/share/jemalloc/thread_data.h)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${inputs})
  message(STATUS "Looking for the private jemalloc; making it takes half a minute, once for each compiler")
  set(compiler ${CMAKE_C_COMPILER})
  if(CMAKE_C_COMPILER_TARGET)
    list(APPEND compiler --target=${CMAKE_C_COMPILER_TARGET})
  endif()
  if(CMAKE_SYSROOT)
    list(APPEND compiler --sysroot=${CMAKE_SYSROOT})
  endif()
  list(JOIN compiler " " compiler)
  execute_process(
    COMMAND ${inputs} "${compiler}" ${CMAKE_OBJCOPY} ${CMAKE_CURRENT_BINARY_DIR} ${COWSHED_JEMALLOC}
    OUTPUT_VARIABLE file ERROR_VARIABLE error RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR " ${error}") # the space keeps it in one line
  endif()
  set_source_files_properties(${file} PROPERTIES EXTERNAL_OBJECT TRUE)
  set(${object} ${file} PARENT_SCOPE)
endfunction()
