// Functions of the C library that keep what they allocate, and write to it later, if only at
// exit(): what they allocate in an ArenaScope lies outside of it.  Part of cowshed::malloc.
#include <atomic>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cwchar>
#include <dlfcn.h>
#include <iconv.h>
#include <pthread.h>

#include <cowshed/share/malloc_route.h>

using namespace cowshed;

namespace {

// The C library's own function of that name, looked up at the first call, by several threads where
// they call it at once.  Not in the initialisation of a function's static: a child that is forked
// while another thread is there would wait for that thread for ever.
template <class Function>
class Next;

template <class Result, class... Arguments>
class Next<Result(Arguments...)> {
 public:
  constexpr explicit Next(const char* name) : name_(name) {}

  Result operator()(Arguments... arguments) {
    Function* function = found_.load(std::memory_order_relaxed);
    if (function == nullptr) {
      function = reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name_));
      found_.store(function, std::memory_order_relaxed);
    }
    return function(arguments...);
  }

 private:
  using Function = Result(Arguments...);

  const char* name_;
  std::atomic<Function*> found_ = nullptr;
};

// With its buffer, for a stream may be opened outside, and first used in a scope.
template <class Open>
FILE* stream_of(Open open) {
  const OutsideScope outside;
  FILE* stream = open();
  if (stream != nullptr) {
    make_buffer(stream);
  }
  return stream;
}

// What the C library makes of the locale in use at the first wide character, and keeps with it.
void make_conversions() {
  constexpr int kNotAscii = 0x80;
  (void)btowc(kNotAscii);
}

}  // namespace

extern "C" {

// NOLINTBEGIN(readability-identifier-naming): the C++ ABI's names, and glibc's for pthread_atfork()
int __cxa_atexit(void (*function)(void*), void* argument, void* library) noexcept {
  static constinit Next<int(void (*)(void*), void*, void*)> real("__cxa_atexit");
  const OutsideScope outside;
  return real(function, argument, library);
}

int __cxa_thread_atexit_impl(void (*function)(void*), void* object, void* library) noexcept {
  static constinit Next<int(void (*)(void*), void*, void*)> real("__cxa_thread_atexit_impl");
  const OutsideScope outside;
  return real(function, object, library);
}

// libstdc++'s name for it.
locale_t __newlocale(int categories, const char* name, locale_t base) noexcept {
  return newlocale(categories, name, base);
}

int __cxa_at_quick_exit(void (*function)(void*), void* library) noexcept {
  static constinit Next<int(void (*)(void*), void*)> real("__cxa_at_quick_exit");
  const OutsideScope outside;
  return real(function, library);
}

int __register_atfork(void (*prepare)(), void (*parent)(), void (*child)(),
                      void* library) noexcept {
  static constinit Next<int(void (*)(), void (*)(), void (*)(), void*)> real("__register_atfork");
  const OutsideScope outside;
  return real(prepare, parent, child, library);
}
// NOLINTEND(readability-identifier-naming)

int on_exit(void (*function)(int, void*), void* argument) noexcept {
  static constinit Next<int(void (*)(int, void*), void*)> real("on_exit");
  const OutsideScope outside;
  return real(function, argument);
}

// Records of a thread stay with its stack, for another thread.
int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                   void* argument) noexcept {
  static constinit Next<int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*)> real(
      "pthread_create");
  const OutsideScope outside;
  return real(thread, attributes, start, argument);
}

int setenv(const char* name, const char* value, int overwrite) noexcept {
  static constinit Next<int(const char*, const char*, int)> real("setenv");
  const OutsideScope outside;
  return real(name, value, overwrite);
}

int putenv(char* text) noexcept {
  static constinit Next<int(char*)> real("putenv");
  const OutsideScope outside;
  return real(text);
}

char* setlocale(int category, const char* name) noexcept {
  static constinit Next<char*(int, const char*)> real("setlocale");
  const OutsideScope outside;
  char* set = real(category, name);
  make_conversions();
  return set;
}

locale_t newlocale(int categories, const char* name, locale_t base) noexcept {
  static constinit Next<locale_t(int, const char*, locale_t)> real("newlocale");
  const OutsideScope outside;
  locale_t made = real(categories, name, base);
  if (made != nullptr) {
    locale_t before = uselocale(made);
    make_conversions();
    uselocale(before);
  }
  return made;
}

iconv_t iconv_open(const char* to, const char* from) {
  static constinit Next<iconv_t(const char*, const char*)> real("iconv_open");
  const OutsideScope outside;
  return real(to, from);
}

FILE* fopen(const char* path, const char* mode) {
  static constinit Next<FILE*(const char*, const char*)> real("fopen");
  return stream_of([=] { return real(path, mode); });
}

FILE* fopen64(const char* path, const char* mode) {
  static constinit Next<FILE*(const char*, const char*)> real("fopen64");
  return stream_of([=] { return real(path, mode); });
}

FILE* fdopen(int fd, const char* mode) noexcept {
  static constinit Next<FILE*(int, const char*)> real("fdopen");
  return stream_of([=] { return real(fd, mode); });
}

FILE* popen(const char* command, const char* mode) {
  static constinit Next<FILE*(const char*, const char*)> real("popen");
  return stream_of([=] { return real(command, mode); });
}

FILE* tmpfile() {
  static constinit Next<FILE*()> real("tmpfile");
  return stream_of([] { return real(); });
}

FILE* tmpfile64() {
  static constinit Next<FILE*()> real("tmpfile64");
  return stream_of([] { return real(); });
}
}
