# cmake -D SOURCE=... -D OUTPUT=... -P VersionCommit.cmake: a header that defines COWSHED_COMMIT.
execute_process(
  COMMAND git -C ${SOURCE} describe --always --tags
  OUTPUT_VARIABLE commit
  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(commit)
  set(commit "commit ${commit}")
else()
  set(commit "a release")
endif()
file(WRITE ${OUTPUT} "#define COWSHED_COMMIT \"${commit}\"\n")
