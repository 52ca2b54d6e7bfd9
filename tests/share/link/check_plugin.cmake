# Fails when PLUGIN, a shared object with a copy of cowshed::share, takes much static TLS (glibc has some
# 1,664 bytes for all that dlopen() loads), may be unmapped, wants an executable stack, or shares its
# variables with other copies.
execute_process(COMMAND ${READELF} -lWd ${PLUGIN} OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
if(NOT said MATCHES "TLS +0x[0-9a-f]+ 0x[0-9a-f]+ 0x[0-9a-f]+ 0x[0-9a-f]+ 0x([0-9a-f]+)")
  message(FATAL_ERROR "no thread-local variables? ${said}")
endif()
math(EXPR bytes "0x${CMAKE_MATCH_1}")
if(bytes GREATER 320)
  message(SEND_ERROR "${bytes} bytes of static TLS")
endif()
if(said MATCHES "GNU_STACK[^\n]*RWE")
  message(SEND_ERROR "it wants an executable stack, which glibc 2.41 refuses")
endif()
if(NOT said MATCHES "NODELETE")
  message(SEND_ERROR "dlclose() would unmap it")
endif()
execute_process(COMMAND ${READELF} -sW --dyn-syms ${PLUGIN} OUTPUT_VARIABLE said
                COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "UNIQUE +DEFAULT +[0-9]+ [^\n]*Registered[^\n]*" shared "${said}")
if(shared)
  message(SEND_ERROR "one for all copies: ${shared}")
endif()
