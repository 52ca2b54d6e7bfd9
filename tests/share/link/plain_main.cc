#include <dlfcn.h>
#include <iostream>

// plain_main LIBRARY: runs the main program that was made a shared library.
int main(int, char** argv) {
  void* library = dlopen(argv[1], RTLD_NOW);
  if (library == nullptr) {
    std::cout << "refused: " << dlerror() << '\n';
    return 0;
  }
  return reinterpret_cast<int (*)()>(dlsym(library, "main"))();
}
