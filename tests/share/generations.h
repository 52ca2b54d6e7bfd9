#pragma once

#include <cstddef>
#include <fcntl.h>
#include <functional>
#include <set>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "share.h"

// What an arena of several generations has in memory.
namespace cowshed::test {

inline constexpr std::size_t kRange = 2_MiB;

// A memfd of an arena that this process has open.
struct Segment {
  int fd;
  ino_t inode;
  std::size_t bytes;  // that it holds
  bool sealed;
};

// In no order.
inline std::vector<Segment> segments(const Arena& arena) {
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
  std::vector<Segment> result;
  for (const int fd :
       descriptors_of("/memfd:cowshed:" + std::string(arena.name()) + " (deleted)")) {
    struct stat status{};
    if (fstat(fd, &status) == 0) {
      result.push_back({fd, status.st_ino, static_cast<std::size_t>(status.st_blocks) * 512,
                        (fcntl(fd, F_GET_SEALS) & kSeals) == kSeals});
    }
  }
  return result;
}

inline std::vector<Mapping> mappings(const Arena& arena) {
  std::vector<Mapping> result = all_mappings();
  const auto begin = reinterpret_cast<std::uintptr_t>(arena.base());
  std::erase_if(result, [&](const Mapping& mapping) {
    return mapping.begin < begin || mapping.begin >= begin + arena.stats().capacity;
  });
  return result;
}

// That which has what is at this address.
inline Segment segment_at(const Arena& arena, const void* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  for (const Mapping& mapping : mappings(arena)) {
    for (const Segment& segment : segments(arena))
      if (at >= mapping.begin && at < mapping.end && segment.inode == mapping.inode) return segment;
  }
  return {-1, 0, 0, false};
}

// "" or what is wrong: every memfd that the arena shows is sealed, and mapped privately.
inline std::string find_unsealed(const Arena& arena) {
  std::set<ino_t> sealed;
  for (const Segment& segment : segments(arena)) {
    if (!segment.sealed) return "a memfd without seals";
    if (mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, segment.fd, 0) != MAP_FAILED)
      return "a memfd that can be mapped for writing";
    sealed.insert(segment.inode);
  }
  for (const Mapping& mapping : mappings(arena)) {
    if (mapping.inode != 0 && sealed.count(mapping.inode) == 0)
      return "a mapping of something else";
    if (mapping.permissions[3] != 'p') return "a shared mapping";
  }
  return "";
}

inline std::size_t private_bytes(const Arena& arena) {
  const auto bytes = arena.private_bytes();
  return bytes ? *bytes : ~std::size_t{0};
}

inline std::size_t own_bytes(const Arena& arena) {
  return own_pages(arena.base(), arena.stats().used) * 4096;
}

// A child that runs its body only when told to.
class ChildOfBefore {
 public:
  explicit ChildOfBefore(const std::function<std::string()>& body)
      : child_([&](const Line& test) {
          if (test.hear()) test.say(body());
          return 0;
        }) {}

  std::string run() const {
    child_.say();
    return child_.hear().value_or("");
  }

 private:
  Child child_;
};

}  // namespace cowshed::test

namespace cowshed {

using test::ChildOfBefore;
using test::find_unsealed;
using test::kRange;
using test::mappings;
using test::own_bytes;
using test::private_bytes;
using test::segment_at;
using test::segments;

}  // namespace cowshed
