// Settles its memory under whatever malloc it has, and then uses calloc.
//
// Usage: allocator_subject [name-all]
//
// Prints the error of settle(), or "settled".  With name-all it names all anonymous memory in
// .also, as nobody should.  Then it frees and allocates, and prints how many bytes calloc left
// dirty.

#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <unistd.h>
#include <vector>

#include <cowshed/share/settle.h>

namespace {

std::vector<std::span<const std::byte>> anonymous_memory() {
  std::vector<std::span<const std::byte>> memory;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin = 0;
    unsigned long end = 0;
    unsigned long inode = 1;
    char permissions[5] = "";
    if (std::sscanf(line.c_str(), "%lx-%lx %4s %*s %*s %lu", &begin, &end, permissions, &inode) ==
            4 &&
        std::string(permissions) == "rw-p" && inode == 0 && line.find("[stack]") == line.npos)
      memory.emplace_back(reinterpret_cast<const std::byte*>(begin), end - begin);
  }
  return memory;
}

// Blocks of many sizes, each filled or found zero.
std::size_t dirty_bytes(std::vector<unsigned char*>& blocks, bool fill) {
  std::size_t dirty = 0;
  for (std::size_t i = 0; i < 3'000; ++i) {
    const std::size_t size = i % 100 == 0 ? std::size_t{1} << 20U : 1'000 + i % 10 * 4'000;
    auto* block = static_cast<unsigned char*>(std::calloc(1, size));
    for (std::size_t at = 0; at < size; ++at) dirty += block[at] != 0 ? 1 : 0;
    if (fill) std::memset(block, 0xaa, size);
    blocks.push_back(block);
  }
  return dirty;
}

}  // namespace

int main(int argc, char** argv) {
  void* (*const volatile allocate)(std::size_t) = &std::malloc;
  std::free(allocate(1));
  std::vector<unsigned char*> blocks;
  dirty_bytes(blocks, true);
  cowshed::SettleOptions options;
  // jemalloc and mimalloc give pages back from threads of their own, if they are asked to.
  options.threads = cowshed::OtherThreads::stop;
  if (argc > 1 && std::strcmp(argv[1], "name-all") == 0) options.also = anonymous_memory();
  const auto settled = cowshed::settle(options);
  std::puts(settled ? "settled" : settled.error().message.c_str());
  std::size_t dirty = 0;
  for (int round = 0; round < 6; ++round) {
    for (unsigned char* block : blocks) std::free(block);
    blocks.clear();
    usleep(50'000);  // they give pages back after a time
    dirty += dirty_bytes(blocks, false);
  }
  std::printf("%zu dirty\n", dirty);
}
