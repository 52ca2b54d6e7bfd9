#include <cstdlib>
#include <gtest/gtest.h>
#include <string>
#include <vector>

#include <cowshed/cow/backend.h>
#include <cowshed/cow/subtrees.h>
#include <cowshed/tests/cow/measure_command.h>

// Parents, children and execs under each backend: each figure is right, or it is absent where the
// backend cannot know it.
namespace cowshed::cow {
namespace {

constexpr std::uint64_t kPages = 1000;
// What a process copies of its own: its stack and its libraries' data.
constexpr std::uint64_t kOwnPages = 60;
// The kernel also copies for the last of the sharers while a CPU's list refers to a page.
constexpr std::uint64_t kNotReused = 100;

bool is_about(std::optional<std::uint64_t> value, std::uint64_t truth,
              std::uint64_t more = kOwnPages) {
  return value && *value >= truth && *value <= truth + more;
}

class LineageConformance : public ::testing::TestWithParam<BackendChoice> {
 protected:
  static bool by_tracepoints() { return GetParam() == BackendChoice::tracepoint; }

  // Until `is_right`: what is sampled may be sampled too late on a busy machine, then once more and
  // slower.  What is counted is right at once.
  template <class IsRight>
  static void expect(const std::string& mode, const IsRight& is_right) {
    ::setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
    std::string found;
    const std::vector<const char*> counted = {"200"};
    const std::vector<const char*> sampled = {"200", "1000", "5000"};
    for (const char* linger_ms : by_tracepoints() ? counted : sampled) {
      auto opened = open_backend(GetParam());
      if (!opened && by_tracepoints()) {
        GTEST_SKIP() << "no tracepoints here: " << opened.error().message;
      }
      ASSERT_TRUE(opened) << opened.error().message;
      const Measurement measured = test::measure_command(
          *opened->backend, {LINEAGE_SUBJECT, mode, std::to_string(kPages), linger_ms});
      if (is_right(measured.processes)) return;
      found.clear();
      for (const ProcessCopies& process : measured.processes) {
        found += std::to_string(process.ppid) + " > " + std::to_string(process.pid);
        for (const auto& figure : {process.copied_anon_pages, process.copied_file_pages,
                                   process.reused_pages, process.copied_pages_before_exec}) {
          found += figure ? " " + std::to_string(*figure) : " -";
        }
        found += "\n";
      }
    }
    ADD_FAILURE() << "anon, file, reused, before exec:\n" << found;
  }
};

using Processes = std::vector<ProcessCopies>;

// The sampled backend cannot know whose copies they were, and has them once: with the child.
TEST_P(LineageConformance, TheParentWritesFirst) {
  expect("parent_first", [](const Processes& found) {
    if (found.size() != 2) return false;
    if (!by_tracepoints()) {
      return !found[0].copied_anon_pages && is_about(found[1].copied_anon_pages, kPages);
    }
    return is_about(found[0].copied_anon_pages, kPages) &&
           is_about(found[1].copied_anon_pages, 0, kOwnPages + kNotReused) &&
           is_about(found[1].reused_pages, kPages - kNotReused, kNotReused + kOwnPages);
  });
}

TEST_P(LineageConformance, TheChildWritesFirst) {
  expect("child_first", [](const Processes& found) {
    if (found.size() != 2 || !is_about(found[1].copied_anon_pages, kPages)) return false;
    if (!by_tracepoints()) return !found[0].copied_anon_pages;
    return is_about(found[0].copied_anon_pages, 0, kOwnPages + kNotReused) &&
           is_about(found[0].reused_pages, kPages - kNotReused, kNotReused + kOwnPages);
  });
}

TEST_P(LineageConformance, BeforeAndAfterExec) {
  expect("exec", [](const Processes& found) {
    return found.size() == 2 && found[1].execs == 1 &&
           is_about(found[1].copied_pages_before_exec, kPages, 2 * kOwnPages) &&
           is_about(found[1].copied_anon_pages, kPages, 2 * kOwnPages) &&
           is_about(found[1].copied_file_pages, kPages, 2 * kOwnPages);
  });
}

TEST_P(LineageConformance, SumsOfNestedWorkers) {
  expect("nested", [](const Processes& found) {
    if (found.size() != 7) return false;
    const auto trees = subtrees(found);
    for (std::size_t i = 0; i < found.size(); ++i) {
      const std::uint64_t size = trees[i].processes;
      const std::uint64_t copies = found[i].role == Role::root ? 6 : size;
      if (size != (found[i].role == Role::root ? 7U : found[i].ppid == found[0].pid ? 3U : 1U)) {
        return false;
      }
      if (!is_about(trees[i].copied_pages, copies * kPages, size * (kOwnPages + kNotReused))) {
        return false;
      }
    }
    return true;
  });
}

INSTANTIATE_TEST_SUITE_P(Each, LineageConformance,
                         ::testing::Values(BackendChoice::tracepoint, BackendChoice::pagemap),
                         [](const auto& instance) {
                           return instance.param == BackendChoice::tracepoint ? "tracepoint"
                                                                              : "pagemap";
                         });

}  // namespace
}  // namespace cowshed::cow
