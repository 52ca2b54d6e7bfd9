#include <cowshed/cow/backends/attach_roots.h>
#include <cowshed/tests/cow/proc/fake_proc.h>

namespace cowshed::cow {
namespace {

class RootsTest : public FakeProc {
 protected:
  static constexpr pid_t kCaller = 30;

  // Each with its parent.
  void processes(const std::map<pid_t, pid_t>& parents) const {
    for (const auto& [pid, ppid] : parents)
      write(std::to_string(pid) + "/stat", std::to_string(pid) + " (x) S " + std::to_string(ppid) +
                                               " 1 1 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0 9 10\n");
  }
  Roots among(const std::vector<pid_t>& pids, const std::set<pid_t>& measured = {}) const {
    return roots_among(pids, proc(), kCaller, [&](pid_t pid) { return measured.contains(pid); });
  }
};

TEST_F(RootsTest, AreThoseAboveTheOthers) {
  processes({{1, 0}, {10, 1}, {11, 10}, {12, 11}, {20, 1}});
  EXPECT_THAT(among({12, 20, 10, 20, 12}).roots, ElementsAre(10, 20));
  EXPECT_THAT(among({12, 11, 20}).roots, ElementsAre(11, 20));
  EXPECT_THAT(among({12, 1, 20, 999}).roots, ElementsAre(1, 999))
      << "gone: it is not known of whom";
  EXPECT_THAT(among({}).roots, IsEmpty());
}

TEST_F(RootsTest, NotOfWhatIsMeasured) {
  processes({{1, 0}, {10, 1}, {11, 10}, {12, 11}});
  const Roots roots = among({10, 12, 1}, {10});
  EXPECT_THAT(roots.roots, ElementsAre(1));
  EXPECT_THAT(roots.measured, ElementsAre(10));
  EXPECT_THAT(among({10}, {10}).roots, IsEmpty());
}

TEST_F(RootsTest, NamedDescendantsOfTheCallerAreRootsOfTheirOwn) {
  processes({{1, 0}, {kCaller, 1}, {31, kCaller}, {32, 31}});
  EXPECT_THAT(among({1, 31, 32}).roots, ElementsAre(1, 31));
  EXPECT_THAT(among({1, 32}, {1}).roots, ElementsAre(32));
  EXPECT_THAT(among({1, kCaller, 31}).roots, ElementsAre(1)) << "the caller is named too";
}

TEST_F(RootsTest, ParentsInACircle) {
  processes({{10, 11}, {11, 10}});
  EXPECT_THAT(among({10}).roots, ElementsAre(10));
  processes({{12, 11}});
  EXPECT_THAT(among({12}).roots, ElementsAre(12));
}

}  // namespace
}  // namespace cowshed::cow
