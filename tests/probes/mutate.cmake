# cmake -D SOURCE=folder -D OUTPUT=folder -D FILE=name -D FROM=text -D TO=text -P mutate.cmake:
# copies the BPF sources and replaces FROM in FILE, once and for certain.
file(GLOB sources ${SOURCE}/*.bpf.c ${SOURCE}/*.bpf.h ${SOURCE}/kernel_types.h ${SOURCE}/record.h)
file(MAKE_DIRECTORY ${OUTPUT})
file(COPY ${sources} DESTINATION ${OUTPUT})
file(READ ${SOURCE}/${FILE} text)
string(FIND "${text}" "${FROM}" at)
if(at EQUAL -1)
  message(FATAL_ERROR "The mutant's text is no longer in ${FILE}: ${FROM}")
endif()
string(REPLACE "${FROM}" "${TO}" text "${text}")
file(WRITE ${OUTPUT}/${FILE} "${text}")
