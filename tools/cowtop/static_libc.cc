// Of the static cowtop alone: glibc would load the machine's modules of name services, and libdwfl
// its libdebuginfod, into a program with another C library, which may crash.
#include <initializer_list>
#include <nss.h>

extern "C" void* dlopen(const char* /*file*/, int /*mode*/) { return nullptr; }

namespace {

[[gnu::constructor]] void need_no_modules() {
  for (const char* database : {"passwd", "group", "initgroups", "services"})
    __nss_configure_lookup(database, "files");
  __nss_configure_lookup("hosts", "files dns");
}

}  // namespace
