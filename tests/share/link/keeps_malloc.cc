#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <memory>

#include <cowshed/share/arena.h>

// keeps_malloc NAME: exits with 0 when malloc is that of the file whose name contains NAME, and an
// arena works beside it.
int main(int argc, char** argv) {
  if (argc != 2) return 2;
  Dl_info info = {};
  if (dladdr(reinterpret_cast<void*>(&std::malloc), &info) == 0) return 3;
  if (std::strstr(info.dli_fname, argv[1]) == nullptr) return 4;
  const std::unique_ptr<void, decltype(&std::free)> block(std::malloc(100), &std::free);
  auto arena = cowshed::Arena::create({.name = "index", .capacity = 16 << 20});
  if (!arena || arena->contains(block.get())) return 5;
  for (int i = 0; i < 1000; ++i) {
    auto made = arena->make<int>(i);
    if (!made || !arena->contains(*made)) return 6;
  }
  return arena->freeze() ? 0 : 7;
}
