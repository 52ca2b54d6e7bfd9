// Must not compile, and the compiler must say what to do.  (.cpp, since what is .cc is linted.)
#include <string_view>

#include <cowshed/share/freeze_copy.h>

cowshed::Expected<const int*> copy_it(const cowshed::Arena& arena, const std::string_view& root) {
  return cowshed::freeze_copy(arena, root);
}
