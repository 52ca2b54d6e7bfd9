#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include <cowshed/share/arena.h>

#include "dataset.h"

namespace cowshed::bench {

// How a process holds its data: in a frozen arena, or on glibc's heap in pages of 4 KiB or, where
// the kernel gives them, of 2 MiB.  A process with a heap also has a frozen arena, an empty one.
struct Holding {
  std::string memory;  // "arena", "heap" or "huge heap"
  std::string layout;  // of dataset.h
  std::size_t bytes;

  nlohmann::json configuration() const;
  std::vector<std::string> environment() const;  // that its process needs
};

// What `memory` means, for a report.
constexpr const char* kHeapSetting =
    "glibc's malloc, transparent huge pages off by prctl(PR_SET_THP_DISABLE)";
constexpr const char* kHugeHeapSetting =
    "glibc's malloc with GLIBC_TUNABLES=glibc.malloc.hugetlb=1, which is madvise(MADV_HUGEPAGE)";

// Such data in this process; checked here and in a child before anybody measures.
class Holder {
 public:
  explicit Holder(const nlohmann::json& configuration);

  nlohmann::json facts() const;  // {"huge_share": of the bytes, in 2 MiB pages}

 private:
  Arena arena_;
  std::unique_ptr<Dataset> data_;
  bool in_arena_;
  std::size_t bytes_;
};

}  // namespace cowshed::bench
