#include <dlfcn.h>

#include <cowshed/tests/share/share.h>

// The C library's functions that ArenaScope stands before, which it looks up at their first call.
namespace {

std::atomic<bool> is_looking = false;
std::atomic<bool> may_go_on = false;

}  // namespace

// In front of the C library's: the first look for putenv() takes as long as the test likes.
extern "C" void* dlsym(void* handle, const char* name) noexcept {
  if (std::strcmp(name, "putenv") == 0 && !is_looking.exchange(true))
    while (!may_go_on) std::this_thread::yield();
  using Lookup = void*(void*, const char*);
  return reinterpret_cast<Lookup*>(dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34"))(handle, name);
}

namespace cowshed {
namespace {

TEST(ArenaScopeLookups, ForkWhileAnotherThreadLooksAFunctionUp) {
  static std::string first = "COWSHED_FIRST=1";
  static std::string second = "COWSHED_SECOND=2";
  std::thread other([] { EXPECT_EQ(putenv(first.data()), 0); });
  while (!is_looking) std::this_thread::yield();
  const auto child = run_in_child([] {
    alarm(60);
    return putenv(second.data()) == 0 ? std::string(std::getenv("COWSHED_SECOND")) : "failed";
  });
  may_go_on = true;
  other.join();
  EXPECT_EQ(child.said, "2") << "signal " << child.signal;
  EXPECT_STREQ(std::getenv("COWSHED_FIRST"), "1");
}

}  // namespace
}  // namespace cowshed
