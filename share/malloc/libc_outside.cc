// Wraps functions of the C library that keep what they allocate, and write to it later, if only at
// exit().  The wrappers make them allocate outside ArenaScopes.  Part of cowshed::malloc.
#include <atomic>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cwchar>
#include <dlfcn.h>
#include <iconv.h>
#include <pthread.h>

#include <cowshed/share/arena/malloc_route.h>

using namespace cowshed::internal;

namespace {

// Calls the C library's own function of that name outside scopes.  The first call looks it up.
// Several threads may do so at once: a static's initialisation would make them wait, and a child
// that is forked meanwhile would wait for ever.
template <auto kOurs, class... Arguments>
auto outside(const char* name, Arguments... arguments) {
  static constinit std::atomic<void*> found = nullptr;
  void* function = found.load(std::memory_order_relaxed);
  if (function == nullptr) {
    function = dlsym(RTLD_NEXT, name);
    found.store(function, std::memory_order_relaxed);
  }
  const OutsideScope scope;
  return reinterpret_cast<decltype(kOurs)>(function)(arguments...);
}

// Allocates the buffer now, because the stream may be first used in a scope.
FILE* with_buffer(FILE* stream) {
  if (stream != nullptr) {
    const OutsideScope scope;
    make_buffer(stream);
  }
  return stream;
}

// Allocates the current locale's conversions now.  The C library would do so at the first wide
// character, and keeps them with the locale.
void make_conversions() {
  constexpr int kNotAscii = 0x80;
  (void)btowc(kNotAscii);
}

}  // namespace

extern "C" {

// NOLINTBEGIN(readability-identifier-naming): the C++ ABI's names, and glibc's for pthread_atfork()
int __cxa_atexit(void (*function)(void*), void* argument, void* library) noexcept {
  return outside<&__cxa_atexit>("__cxa_atexit", function, argument, library);
}

int __cxa_thread_atexit_impl(void (*function)(void*), void* object, void* library) noexcept {
  return outside<&__cxa_thread_atexit_impl>("__cxa_thread_atexit_impl", function, object, library);
}

// libstdc++ calls newlocale() by this name.
locale_t __newlocale(int categories, const char* name, locale_t base) noexcept {
  return newlocale(categories, name, base);
}

int __cxa_at_quick_exit(void (*function)(void*), void* library) noexcept {
  return outside<&__cxa_at_quick_exit>("__cxa_at_quick_exit", function, library);
}

int __register_atfork(void (*prepare)(), void (*parent)(), void (*child)(),
                      void* library) noexcept {
  return outside<&__register_atfork>("__register_atfork", prepare, parent, child, library);
}
// NOLINTEND(readability-identifier-naming)

int on_exit(void (*function)(int, void*), void* argument) noexcept {
  return outside<&on_exit>("on_exit", function, argument);
}

// A thread's records stay with its stack, which a later thread uses again.
int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                   void* argument) noexcept {
  return outside<&pthread_create>("pthread_create", thread, attributes, start, argument);
}

int setenv(const char* name, const char* value, int overwrite) noexcept {
  return outside<&setenv>("setenv", name, value, overwrite);
}

int putenv(char* text) noexcept { return outside<&putenv>("putenv", text); }

char* setlocale(int category, const char* name) noexcept {
  const OutsideScope scope;
  char* set = outside<&setlocale>("setlocale", category, name);
  make_conversions();
  return set;
}

locale_t newlocale(int categories, const char* name, locale_t base) noexcept {
  const OutsideScope scope;
  locale_t made = outside<&newlocale>("newlocale", categories, name, base);
  if (made != nullptr) {
    locale_t before = uselocale(made);
    make_conversions();
    uselocale(before);
  }
  return made;
}

iconv_t iconv_open(const char* to, const char* from) {
  return outside<&iconv_open>("iconv_open", to, from);
}

FILE* fopen(const char* path, const char* mode) {
  return with_buffer(outside<&fopen>("fopen", path, mode));
}

FILE* fopen64(const char* path, const char* mode) {
  return with_buffer(outside<&fopen64>("fopen64", path, mode));
}

FILE* fdopen(int fd, const char* mode) noexcept {
  return with_buffer(outside<&fdopen>("fdopen", fd, mode));
}

FILE* popen(const char* command, const char* mode) {
  return with_buffer(outside<&popen>("popen", command, mode));
}

FILE* tmpfile() { return with_buffer(outside<&tmpfile>("tmpfile")); }

FILE* tmpfile64() { return with_buffer(outside<&tmpfile64>("tmpfile64")); }
}
