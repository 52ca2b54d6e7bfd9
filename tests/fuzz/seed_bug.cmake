# cmake -D SOURCE=file -D OUTPUT=file -D FROM=text -D TO=text -P seed_bug.cmake: copies the file and
# replaces FROM in it, for certain.
file(READ ${SOURCE} text)
string(FIND "${text}" "${FROM}" at)
if(at EQUAL -1)
  message(FATAL_ERROR "The seeded bug's text is no longer in ${SOURCE}: ${FROM}")
endif()
string(REPLACE "${FROM}" "${TO}" text "${text}")
file(WRITE ${OUTPUT} "${text}")
