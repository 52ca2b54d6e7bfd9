# cmake -D FOLDER=... -D SCRIPTS="a.js b.js" -D OUTPUT=... -P PageText.cmake: the page with its style
# and scripts in it, as a C++ source (page_text.h).  The page's policy names them by their hashes, so
# that a browser runs them and nothing else.

function(hash_source text out)
  string(SHA256 hex "${text}")
  set(alphabet ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/)
  set(base64)
  foreach(at RANGE 0 60 6) # 32 bytes and one of padding, three at a time
    string(SUBSTRING "${hex}00" ${at} 6 digits)
    foreach(shift 18 12 6 0)
      math(EXPR sextet "(0x${digits} >> ${shift}) & 63")
      string(SUBSTRING ${alphabet} ${sextet} 1 letter)
      string(APPEND base64 ${letter})
    endforeach()
  endforeach()
  string(SUBSTRING ${base64} 0 43 base64)
  set(${out} "'sha256-${base64}='" PARENT_SCOPE)
endfunction()

file(READ ${FOLDER}/page.css style)
set(script "\"use strict\";\n")
separate_arguments(SCRIPTS)
foreach(name IN LISTS SCRIPTS)
  file(READ ${FOLDER}/${name} text)
  string(APPEND script "${text}")
endforeach()
hash_source("${style}" STYLE_SOURCE)
hash_source("${script}" SCRIPT_SOURCE)

file(READ ${FOLDER}/page.html page)
foreach(name STYLE_SOURCE SCRIPT_SOURCE)
  string(REPLACE "@${name}@" "${${name}}" page "${page}")
endforeach()
string(REPLACE "@STYLE@" "${style}" page "${page}")
string(REPLACE "@SCRIPT@" "${script}" page "${page}")
string(FIND "${page}" "@DATA@" begin_size)
string(SUBSTRING "${page}" 0 ${begin_size} begin)
math(EXPR end_at "${begin_size} + 6")
string(SUBSTRING "${page}" ${end_at} -1 end)
file(WRITE ${OUTPUT} "#include <cowshed/tools/cowtop/html/page_text.h>

namespace cowshed::cowtop {

std::string_view page_begin() { return R\"cowtop-page(${begin})cowtop-page\"; }
std::string_view page_end() { return R\"cowtop-page(${end})cowtop-page\"; }

}  // namespace cowshed::cowtop
")
