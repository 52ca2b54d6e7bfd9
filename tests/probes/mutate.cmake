# cmake -D SOURCE=folder -D OUTPUT=folder -D FILE=name -D CHANGES=from;to;from;to... -P mutate.cmake:
# copies the BPF sources and replaces each text in FILE, once and for certain.  A single element
# ending in ".h" or ".c" names the file for the changes after it.
cmake_policy(VERSION 3.25) # an empty text is an element of a list
file(GLOB sources ${SOURCE}/*.c ${SOURCE}/*.h)
file(MAKE_DIRECTORY ${OUTPUT})
file(COPY ${sources} DESTINATION ${OUTPUT})
file(READ ${SOURCE}/${FILE} text)
while(CHANGES)
  list(GET CHANGES 0 next)
  if(next MATCHES "^[a-z_.]+\\.[hc]$")
    file(WRITE ${OUTPUT}/${FILE} "${text}")
    list(POP_FRONT CHANGES FILE)
    file(READ ${OUTPUT}/${FILE} text)
  endif()
  list(POP_FRONT CHANGES from to)
  string(FIND "${text}" "${from}" at)
  if(at EQUAL -1)
    message(FATAL_ERROR "The mutant's text is no longer in ${FILE}: ${from}")
  endif()
  string(REPLACE "${from}" "${to}" text "${text}")
endwhile()
file(WRITE ${OUTPUT}/${FILE} "${text}")
