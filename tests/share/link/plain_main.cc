#include <cstdio>
#include <dlfcn.h>

// plain_main LIBRARY: runs the main program that was made a shared library.  Uses nothing of the
// C++ library, so that a plugin's operators come first for it.
int main(int, char** argv) {
  void* library = dlopen(argv[1], RTLD_NOW);
  if (library == nullptr) {
    std::printf("refused: %s\n", dlerror());
    return 0;
  }
  return reinterpret_cast<int (*)()>(dlsym(library, "main"))();
}
