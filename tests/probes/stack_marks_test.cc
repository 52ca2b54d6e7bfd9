#include <algorithm>
#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <gtest/gtest.h>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "subject.h"

// A mark that stayed would make each fault of whoever gets the stack next dearer, for as long as
// the probes are there.

namespace cowshed::test {
namespace {

// The variable `name` of this process's BPF programs, as it is now.
std::vector<std::uint32_t> words_of(const std::string& name) {
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename());
    bpf_map_info info = {};
    __u32 size = sizeof info;
    const bool is_map =
        std::filesystem::read_symlink(entry.path()).string().find("bpf-map") != std::string::npos;
    if (!is_map || bpf_obj_get_info_by_fd(fd, &info, &size) != 0 ||
        !std::string(info.name).ends_with(".bss")) {
      continue;
    }
    const std::unique_ptr<btf, decltype(&btf__free)> types(btf__load_from_kernel_by_id(info.btf_id),
                                                           btf__free);
    const btf_type* section = btf__type_by_id(types.get(), info.btf_value_type_id);
    const btf_var_secinfo* variables = btf_var_secinfos(section);
    std::vector<char> value(info.value_size);
    const __u32 key = 0;
    if (bpf_map_lookup_elem(fd, &key, value.data()) != 0) {
      return {};
    }
    for (int i = 0; i < btf_vlen(section); ++i) {
      const btf_type* variable = btf__type_by_id(types.get(), variables[i].type);
      if (btf__name_by_offset(types.get(), variable->name_off) == name) {
        std::vector<std::uint32_t> words(variables[i].size / sizeof(std::uint32_t));
        std::memcpy(words.data(), value.data() + variables[i].offset, variables[i].size);
        return words;
      }
    }
  }
  return {};
}

std::uint64_t marks() {
  const auto words = words_of("stack_marks");
  EXPECT_FALSE(words.empty());
  return std::accumulate(words.begin(), words.end(), std::uint64_t{0});
}

TEST(StackMarks, AreTakenBackFromEveryThreadThatEnds) {
  if (const std::string reason = cannot_probe(); !reason.empty()) {
    GTEST_SKIP() << reason;
  }
  for (const char* kind : {"thread_churn", "short_children", "generations", "after_exec"}) {
    Probe probe = must(Probe::load());
    EXPECT_EQ(marks(), 0U);
    std::uint64_t most = 0;
    run_subject(probe, kind, 30, [&](const Snapshot&) { most = std::max(most, marks()); });
    EXPECT_GT(most, 0U) << kind;
    // The kernel frees a thread's stack some time after its end, on a busy machine seconds.
    for (int i = 0; i < 600 && marks() != 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    EXPECT_EQ(marks(), 0U) << kind;
  }
}

}  // namespace
}  // namespace cowshed::test
