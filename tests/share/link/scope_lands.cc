#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>

#include <cowshed/share/arena.h>
#include <cowshed/share/arena_scope.h>

// Says "refused: " and the error of ArenaScope::enter(), or "all in the arena" when malloc, new and
// the C library's own calls of malloc come from there, or which of them do not.
int main() {
  auto arena = cowshed::Arena::create({.name = "loaded", .capacity = 16 << 20});
  if (!arena) return 2;
  const char* outside = nullptr;
  const auto see = [&](const char* what, const void* block) {
    outside = arena->contains(block) ? outside : what;
  };
  {
    const auto scope = cowshed::ArenaScope::enter(*arena);
    if (!scope) {
      std::cout << "refused: " << scope.error().message << '\n';
      return 0;
    }
    std::cout << "entered: ";  // the first use of stdout, whose buffer outlives the arena
    see("malloc", std::malloc(100));
    see("calloc", std::calloc(10, 10));
    see("aligned_alloc", std::aligned_alloc(64, 128));
    see("strdup", strdup("text"));
    see("new", ::operator new(100));
    see("new[]", ::operator new[](100));
    see("aligned new", ::operator new(100, std::align_val_t{64}));
    see("libstdc++", (new std::string(1000, 'x'))->data());
  }
  const std::unique_ptr<void, decltype(&std::free)> after(std::malloc(100), &std::free);
  const auto frozen = arena->freeze();
  const bool mixed = arena->contains(after.get()) || !frozen;
  std::cout << (outside != nullptr ? outside
                : mixed            ? "malloc after it"
                                   : "all in the arena")
            << '\n';
}
