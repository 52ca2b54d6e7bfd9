# Fails when PROGRAM, which links cowshed::share, has tables of zeros in its file.
execute_process(COMMAND ${READELF} -SW ${PROGRAM} OUTPUT_VARIABLE said COMMAND_ERROR_IS_FATAL ANY)
if(NOT said MATCHES " \\.data +PROGBITS +[0-9a-f]+ [0-9a-f]+ ([0-9a-f]+) ")
  message(FATAL_ERROR "no .data: ${said}")
endif()
math(EXPR bytes "0x${CMAKE_MATCH_1}")
if(bytes GREATER 65536)
  message(FATAL_ERROR ".data has ${bytes} bytes")
endif()
