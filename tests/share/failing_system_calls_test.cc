#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <initializer_list>
#include <linux/membarrier.h>
#include <new>
#include <optional>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/registry.h>

#include "child.h"
#include "system_call_failures.h"

namespace cowshed {
namespace {

using test::SystemCall;

constexpr std::uint64_t kCollapse = 25;  // MADV_COLLAPSE, Linux 6.1
constexpr std::size_t kBlock = 256_KiB;
constexpr std::size_t kBlocks = 9;  // more than one of jemalloc's 2 MiB

// What a process has that an arena could have left behind.
struct Footprint {
  std::size_t descriptors = 0;
  std::size_t arena_mappings = 0;  // by name, by place or by MADV_DONTFORK
  std::size_t bytes = 0;           // of address space

  static Footprint now() {
    Footprint result;
    for ([[maybe_unused]] const auto& entry :
         std::filesystem::directory_iterator("/proc/self/fd")) {
      ++result.descriptors;
    }
    std::ifstream file("/proc/self/smaps");
    bool counted = false;
    for (std::string line; std::getline(file, line);) {
      std::size_t begin = 0;
      std::size_t end = 0;
      if (std::sscanf(line.c_str(), "%zx-%zx ", &begin, &end) == 2) {
        result.bytes += end - begin;
        counted = line.find("memfd:cowshed:subject") != std::string::npos ||
                  (begin >= 0x200000000000 && begin < 0x500000000000 &&
                   line.find("memfd:cowshed-layout") == std::string::npos);
        result.arena_mappings += counted ? 1 : 0;
      } else if (line.starts_with("VmFlags:") && line.find(" dc") != std::string::npos) {
        result.arena_mappings += counted ? 0 : 1;
      }
    }
    return result;
  }
};

// Which calls fail, and with what.  Shared with the process that waits for the outcome.
struct Plan {
  int from = -1;  // the number of the first that fails, of those that are counted; -1: none
  int count = 1;  // how many, of the same kind as the first
  std::atomic<int> seen = 0;
  std::atomic<int> failed = 0;
  SystemCall first{};
  int error = 0;
};

std::vector<int> errors_of(long number) {
  switch (number) {
    case SYS_memfd_create: return {EMFILE, ENOMEM, EINVAL};
    case SYS_mmap: return {ENOMEM};  // jemalloc tells of no other
    case SYS_madvise: return {ENOMEM, EINVAL, EAGAIN};
    case SYS_fcntl: return {EBUSY, EPERM};
    case SYS_ftruncate: return {ENOMEM, EINTR, EPERM};
    case SYS_fallocate: return {ENOSPC, ENOMEM, EINTR};
    case SYS_membarrier: return {ENOSYS, EPERM};
    case SYS_openat: return {EMFILE, EACCES, ENOENT};
    default: return {ENOTTY, EINVAL};
  }
}

class Failures {
 public:
  explicit Failures(Plan& plan) : plan_(plan) {
    for (const long number : {SYS_memfd_create, SYS_mmap, SYS_madvise, SYS_fcntl, SYS_ftruncate,
                              SYS_fallocate, SYS_membarrier, SYS_openat, SYS_ioctl}) {
      errors_.emplace_back(number, errors_of(number));
    }
  }

  void start() {
    plan_.seen = 0;
    plan_.failed = 0;
    test::decide_system_calls([this](const SystemCall& call) { return decide(call); });
  }
  static void stop() { test::decide_system_calls(nullptr); }
  int failed() const { return plan_.failed; }
  int error() const { return plan_.failed > 0 ? plan_.error : 0; }
  std::string text() const {
    return "call " + std::to_string(plan_.from) + " " + test::describe(plan_.first) + " with " +
           std::strerror(plan_.error) + " x" + std::to_string(plan_.failed);
  }

 private:
  int decide(const SystemCall& call) {
    // Asking how much memory there is: memory_limits_test has that.
    if (call.number == SYS_openat &&
        std::strncmp(reinterpret_cast<const char*>(call.arguments[1]), "/sys/", 5) == 0) {
      return 0;
    }
    const int number = plan_.seen++;
    if (plan_.from < 0 || number < plan_.from || plan_.failed >= plan_.count) {
      return 0;
    }
    if (plan_.failed == 0) {
      plan_.first = call;
      for (const auto& [known, errors] : errors_) {
        if (known == call.number) {
          plan_.error = errors[static_cast<std::size_t>(number) % errors.size()];
          // For ever no signal comes.
          plan_.error = plan_.count > 1 && plan_.error == EINTR ? EIO : plan_.error;
        }
      }
    } else if (call.number != plan_.first.number) {
      return 0;
    }
    ++plan_.failed;
    return plan_.error;
  }

  Plan& plan_;
  std::vector<std::pair<long, std::vector<int>>> errors_;
};

struct Node {
  Node* next;
  std::uint64_t value;
  std::array<char, 32> rest;
};

// The life of an arena.  Every step either succeeds or gives a documented error; and after that it
// succeeds once nothing fails any more.
class Life {
 public:
  Life(FreezeMode mode, Failures* failures) : mode_(mode), failures_(failures) {}

  // "" or what was wrong.  A short life is not thawed.
  std::string live(bool is_short = false) {
    if (failures_ != nullptr) {
      failures_->start();
    }
    (void)(grow_up() && (is_short || grow_old()));
    Failures::stop();
    arena_.reset();
    return problem_;
  }

 private:
  using Codes = std::initializer_list<ErrorCode>;

  bool grow_up() { return create() && add(kBlocks) && publish() && freeze() && read(); }
  bool grow_old() {
    return write() && thaw() && add(kBlocks) && refreeze() && write() && refreeze() && look() &&
           read() && read_in_child();
  }

  bool wrong(const std::string& what) {
    if (problem_.empty()) {
      problem_ = what;
    }
    return false;
  }

  template <class Function>
  bool step(const char* name, const Codes& documented, Function function) {
    Expected<void> done = attempt(function);
    if (done) {
      return check_stats(name);
    }
    const Error error = done.error();
    if (std::find(documented.begin(), documented.end(), error.code) == documented.end()) {
      return wrong(std::string(name) + ": not documented: " + error.message);
    }
    if (error.code == ErrorCode::system_call &&
        (failures_ == nullptr || error.system_errno != failures_->error())) {
      return wrong(std::string(name) + ": another errno: " + error.message);
    }
    Failures::stop();
    if (!check_stats(name) || !read() || !allocate_if_open()) {
      return false;
    }
    done = attempt(function);
    return done
               ? check_stats(name)
               : wrong(std::string(name) + " once nothing fails any more: " + done.error().message);
  }

  template <class Function>
  static Expected<void> attempt(Function function) {
    try {
      return function();
    } catch (const ArenaBadAlloc& failure) {
      return tl::make_unexpected(failure.error());
    } catch (const std::bad_alloc&) {
      return make_error(ErrorCode::out_of_memory, "std::bad_alloc");
    }
  }

  // What could not be frozen is as open as before, unless that failed too.
  bool allocate_if_open() {
    if (!arena_ || arena_->stats().frozen) {
      return true;
    }
    const auto added = attempt([this]() -> Expected<void> {
      first_ = new (arena_->allocate(sizeof(Node))) Node{first_, ++nodes_ + added_, {}};
      return {};
    });
    if (!added && added.error().code == ErrorCode::arena_frozen && failures_->failed() > 1) {
      return true;
    }
    return added ? read() : wrong("allocation after the error: " + added.error().message);
  }

  bool create() {
    return step("create",
                {ErrorCode::system_call, ErrorCode::unsupported, ErrorCode::out_of_memory},
                [this]() -> Expected<void> {
                  auto arena = Arena::create({.name = "subject", .capacity = 512_GiB});
                  if (!arena) {
                    return tl::make_unexpected(arena.error());
                  }
                  arena_ = std::move(*arena);
                  return {};
                });
  }

  // Nodes, and between them blocks that make the arena grow.
  bool add(std::size_t blocks) {
    const Codes documented = {ErrorCode::out_of_memory};
    for (std::size_t i = 0; i < blocks; ++i) {
      const bool added = step("a node", documented,
                              [this]() -> Expected<void> {
                                for (int many = 0; many < 500; ++many) {
                                  first_ = new (arena_->allocate(sizeof(Node)))
                                      Node{first_, ++nodes_ + added_, {}};
                                }
                                return {};
                              }) &&
                         step("a block", documented, [this]() -> Expected<void> {
                           auto* block = static_cast<char*>(arena_->allocate(kBlock, 4096));
                           blocks_.push_back(block);
                           std::memset(block, static_cast<int>(blocks_.size()), kBlock);
                           return {};
                         });
      if (!added) {
        return false;
      }
    }
    // Something to give back.
    return step("a block for a moment", documented, [this]() -> Expected<void> {
      arena_->deallocate(arena_->allocate(4_MiB, 4096), 4_MiB, 4096);
      return {};
    });
  }

  bool publish() {
    return step("publish", {ErrorCode::out_of_memory}, [this]() -> Expected<void> {
      return cowshed::publish("first", first_).map([](const auto&) {});
    });
  }

  bool freeze() {
    return step("freeze",
                {ErrorCode::system_call, ErrorCode::out_of_memory, ErrorCode::unsupported},
                [this] { return arena_->freeze(mode_); });
  }
  bool thaw() {
    return step("thaw", {ErrorCode::system_call, ErrorCode::out_of_memory, ErrorCode::unsupported},
                [this] { return arena_->thaw(); });
  }
  bool refreeze() {
    return step("refreeze",
                {ErrorCode::system_call, ErrorCode::out_of_memory, ErrorCode::unsupported},
                [this] { return arena_->refreeze(); });
  }

  bool write() {
    if (mode_ == FreezeMode::lenient) {
      for (Node* node = first_; node != nullptr; node = node->next) {
        node->rest[0] = 1;
        node->value += 1;
      }
      added_ += 1;
    }
    return true;
  }

  bool look() {
    const Codes documented = {ErrorCode::system_call};
    return step("prefault", documented, [this] { return arena_->prefault(); }) &&
           step("collapse", {}, [this] { return arena_->collapse().map([](std::size_t) {}); }) &&
           step("private_bytes", documented, [this]() -> Expected<void> {
             auto bytes = arena_->private_bytes();
             if (!bytes) {
               return tl::make_unexpected(bytes.error());
             }
             // What could not be mapped stays private until the next refreeze().
             if (*bytes != 0 && failures_ != nullptr && failures_->error() != 0) {
               Failures::stop();
               (void)arena_->refreeze();
               bytes = arena_->private_bytes();
             }
             return *bytes == 0 ? Expected<void>{}
                                : make_error(ErrorCode::in_use,
                                             std::to_string(*bytes) + " bytes are private");
           });
  }

  bool read() {
    std::uint64_t value = nodes_;
    for (const Node* node = first_; node != nullptr; node = node->next) {
      if (node->value != value-- + added_) {
        return wrong("a node has another value");
      }
    }
    if (value != 0) {
      return wrong("nodes are missing");
    }
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      for (std::size_t byte = 0; byte < kBlock; byte += 512) {
        if (blocks_[i][byte] != static_cast<char>(i + 1)) {
          return wrong("a block has other bytes");
        }
      }
    }
    return true;
  }

  bool read_in_child() {
    Failures::stop();
    const auto child = test::run_in_child([this]() -> std::string {
      return read() && *arena_->private_bytes() == 0 && find<Node>("first") ? "fine" : "wrong";
    });
    return child.said == "fine" || wrong("a child: " + child.said);
  }

  bool check_stats(const char* name) {
    if (!arena_) {
      return true;
    }
    const ArenaStats stats = arena_->stats();
    const std::size_t covered = stats.huge_page_bytes +
                                stats.huge_page_misses.size() * std::size_t{2_MiB} +
                                stats.returned_bytes;
    // Until a freeze, what was asked for and could not be had is no range of any kind.
    if (stats.frozen ? covered != stats.used : covered > stats.used) {
      return wrong(std::string(name) + ": stats() cover " + std::to_string(covered) + " of " +
                   std::to_string(stats.used) + " bytes");
    }
    return true;
  }

  FreezeMode mode_;
  Failures* failures_;
  std::string problem_;
  std::optional<Arena> arena_;
  Node* first_ = nullptr;
  std::uint64_t nodes_ = 0;
  std::uint64_t added_ = 0;
  std::vector<char*> blocks_;
};

// Shared with forked children: where a sweep is, for the case that it ends with a signal.
Plan& shared_plan() {
  static void* page =
      mmap(nullptr, sizeof(Plan), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  return *new (page) Plan;
}

constexpr int kForEver = 1 << 30;

class FailingSystemCalls : public testing::TestWithParam<std::pair<FreezeMode, int>> {};
INSTANTIATE_TEST_SUITE_P(Modes, FailingSystemCalls,
                         testing::Values(std::pair(FreezeMode::strict, 1),
                                         std::pair(FreezeMode::lenient, 1),
                                         std::pair(FreezeMode::strict, kForEver),
                                         std::pair(FreezeMode::lenient, kForEver)),
                         [](const auto& test) {
                           return std::string(test.param.first == FreezeMode::strict ? "Strict"
                                                                                     : "Lenient") +
                                  (test.param.second == 1 ? "Once" : "FromThenOn");
                         });

// Each call of an arena's life fails in turn, in one process; before and after, a life in which
// none fails shows what is usual.
TEST_P(FailingSystemCalls, GiveTheDocumentedErrorAndLeakNothing) {
  const FreezeMode mode = GetParam().first;
  const auto count = GetParam().second;
  Plan& plan = shared_plan();
  const auto child = test::run_in_child([&]() -> std::string {
    if (const std::string reason = test::intercept_system_calls(); !reason.empty()) {
      return "skip: " + reason;
    }
    Failures failures(plan);
    for (int i = 0; i < 3; ++i) {
      if (const std::string problem = Life(mode, nullptr).live(); !problem.empty()) {
        return "without a failure: " + problem;
      }
    }
    const Footprint warm = Footprint::now();
    (void)Life(mode, nullptr).live();
    Footprint before = Footprint::now();
    const std::size_t usual = before.bytes - warm.bytes;
    std::string problems;
    int points = 0;
    plan.count = count;
    for (plan.from = 0;; ++plan.from) {
      std::string problem = Life(mode, &failures).live();
      if (plan.failed == 0) {
        break;  // no call has this number
      }
      ++points;
      const Footprint after = Footprint::now();
      if (problem.empty() && after.descriptors != before.descriptors) {
        problem = std::to_string(after.descriptors) + " descriptors, before " +
                  std::to_string(before.descriptors);
      }
      if (problem.empty() && after.arena_mappings != before.arena_mappings) {
        problem = std::to_string(after.arena_mappings) + " mappings of an arena, before " +
                  std::to_string(before.arena_mappings);
      }
      // 2 MiB for each jemalloc arena that there ever was, and for one that had to be made twice.
      if (problem.empty() && after.bytes > before.bytes + usual + 4_MiB) {
        problem = std::to_string(after.bytes - before.bytes) + " bytes of address space more, " +
                  std::to_string(usual) + " are usual";
      }
      before = after;
      if (!problem.empty() && problems.size() < 2000) {
        problems += failures.text() + ": " + problem + "\n";
      }
    }
    return problems + std::to_string(points) + " calls failed";
  });
  if (child.said.starts_with("skip: ")) {
    GTEST_SKIP() << child.said;
  }
  ASSERT_EQ(child.signal, 0) << "call " << plan.from << " " << test::describe(plan.first)
                             << " with " << std::strerror(plan.error) << ", failed " << plan.failed;
  EXPECT_THAT(child.said, testing::MatchesRegex("[0-9][0-9][0-9]+ calls failed"));
  std::printf("%s\n", child.said.c_str());
}

// The same in processes that never had an arena, so that what is made only once fails too.
TEST(FailingSystemCalls, OfTheFirstArenaEver) {
  Plan& plan = shared_plan();
  plan.count = 1;
  int points = 0;
  for (plan.from = 0;; ++plan.from) {
    const auto child = test::run_in_child([&]() -> std::string {
      if (const std::string reason = test::intercept_system_calls(); !reason.empty()) {
        return "skip: " + reason;
      }
      Failures failures(plan);
      const std::size_t descriptors = Footprint::now().descriptors;
      std::string problem = Life(FreezeMode::strict, &failures).live(true);
      if (plan.failed == 0) {
        return "done";
      }
      if (problem.empty()) {
        problem = Life(FreezeMode::strict, nullptr).live();
      }
      const Footprint after = Footprint::now();
      const std::size_t expected = descriptors + 1;  // the process tree's memfd stays
      if (problem.empty() && (after.descriptors != expected || after.arena_mappings != 0)) {
        problem = std::to_string(after.arena_mappings) + " mappings and " +
                  std::to_string(after.descriptors - expected) + " descriptors are left";
      }
      return problem.empty() ? "fine" : failures.text() + ": " + problem;
    });
    if (child.said.starts_with("skip: ")) {
      GTEST_SKIP() << child.said;
    }
    ASSERT_EQ(child.signal, 0) << "call " << plan.from << " " << test::describe(plan.first);
    if (child.said == "done") {
      break;
    }
    EXPECT_EQ(child.said, "fine");
    ++points;
  }
  EXPECT_GT(points, 50);
  std::printf("%d calls failed\n", points);
}

// To put older generations together can wait, and is made up for.
TEST(FailingSystemCalls, ARefreezeDoesWithoutMemoryForOldData) {
  const auto child = test::run_in_child([]() -> std::string {
    if (const std::string reason = test::intercept_system_calls(); !reason.empty()) {
      return "skip: " + reason;
    }
    Arena arena = Arena::create({.name = "subject", .capacity = 256_MiB}).value();
    std::vector<std::size_t*> numbers;
    std::size_t used = 0;
    const auto add_generation = [&] {
      numbers.push_back(arena.make<std::size_t>(numbers.size()).value());
      const auto done = numbers.size() == 1 ? arena.freeze() : arena.refreeze();
      test::decide_system_calls(nullptr);
      used = arena.stats().used;
      return done && arena.thaw();
    };
    for (int i = 0; i < 20; ++i) {
      test::decide_system_calls([&](const SystemCall& call) {
        const bool old = call.number == SYS_fallocate && call.arguments[2] < used;
        return old && call.arguments[1] == 0 ? ENOSPC : 0;
      });
      if (!add_generation()) {
        return "refused";
      }
    }
    const std::size_t many = Footprint::now().descriptors;
    if (!add_generation()) {
      return "refused without a failure";
    }
    const std::size_t few = Footprint::now().descriptors;
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (*numbers[i] != i) {
        return "another number";
      }
    }
    return many >= few + 15 ? "fine" : std::to_string(many) + " " + std::to_string(few);
  });
  if (child.said.starts_with("skip: ")) {
    GTEST_SKIP() << child.said;
  }
  EXPECT_EQ(child.said, "fine") << child.signal;
}

bool is_collapse(const SystemCall& call) {
  return call.number == SYS_madvise && call.arguments[2] == kCollapse;
}

std::string fill_without_huge_pages(Arena& arena, std::vector<char*>& blocks) {
  for (int i = 0; i < 40; ++i) {
    auto* block = static_cast<char*>(arena.allocate(kBlock, 4096));
    std::memset(block, i, kBlock);
    blocks.push_back(block);
  }
  return "";
}

bool holds_what_was_filled(const std::vector<char*>& blocks) {
  int number = 0;
  return std::all_of(blocks.begin(), blocks.end(), [&](const char* block) {
    const bool same = block[0] == number && std::memcmp(block, block + 1, kBlock - 1) == 0;
    ++number;
    return same;
  });
}

TEST(WithoutCollapse, TheArenaHasSmallPagesAndSaysSo) {
  const auto child = test::run_in_child([]() -> std::string {
    if (const std::string reason = test::intercept_system_calls(); !reason.empty()) {
      return "skip: " + reason;
    }
    test::decide_system_calls(
        [](const SystemCall& call) { return is_collapse(call) ? EINVAL : 0; });
    auto arena = Arena::create({.name = "subject", .capacity = 256_MiB});
    std::vector<char*> blocks;
    fill_without_huge_pages(*arena, blocks);
    if (arena->stats().huge_page_bytes != 0 || !arena->freeze()) {
      return "the freeze failed";
    }
    const ArenaStats stats = arena->stats();
    const bool listed =
        std::all_of(stats.huge_page_misses.begin(), stats.huge_page_misses.end(),
                    [number = std::size_t{0}](const HugePageMiss& miss) mutable {
                      return miss.error == EINVAL && miss.offset == number++ * std::size_t{2_MiB};
                    });
    if (stats.huge_page_bytes != 0 || !listed ||
        stats.huge_page_misses.size() * std::size_t{2_MiB} + stats.returned_bytes != stats.used ||
        stats.huge_page_misses.size() < 5) {
      return std::to_string(stats.huge_page_misses.size()) + " misses of " +
             std::to_string(stats.used / 2_MiB) + ", huge " + std::to_string(stats.huge_page_bytes);
    }
    const auto reader = test::run_in_child([&]() -> std::string {
      return holds_what_was_filled(blocks) && *arena->private_bytes() == 0 && arena->prefault()
                 ? "fine"
                 : "wrong";
    });
    if (reader.said != "fine" || *arena->collapse() != 0) {
      return "a child reads: " + reader.said;
    }
    test::decide_system_calls(nullptr);
    const std::size_t later = *arena->collapse();
    return later == stats.used && arena->stats().huge_page_misses.empty() &&
                   holds_what_was_filled(blocks)
               ? "fine"
               : std::to_string(later) + " bytes later, of " + std::to_string(stats.used);
  });
  if (child.said.starts_with("skip: ")) {
    GTEST_SKIP() << child.said;
  }
  EXPECT_EQ(child.said, "fine");
}

TEST(WithoutCollapse, AChannelsBufferHasAllItsMemoryInSmallPages) {
  const auto child = test::run_in_child([]() -> std::string {
    if (const std::string reason = test::intercept_system_calls(); !reason.empty()) {
      return "skip: " + reason;
    }
    int asked = 0;
    test::decide_system_calls([&](const SystemCall& call) {
      asked += is_collapse(call) ? 1 : 0;
      return is_collapse(call) ? EINVAL : 0;
    });
    auto channel = Channel<Bytes>::create({.name = "subject", .memory = 200_MiB});
    struct stat before{};
    fstat(channel->descriptors().segment, &before);
    const auto buffer = channel->buffer(130_MiB + 5);
    struct stat after{};
    fstat(channel->descriptors().segment, &after);
    const auto pages = (after.st_blocks - before.st_blocks) / 8;
    return buffer && asked == 1 && pages == 130_MiB / 4096 + 1
               ? "fine"
               : std::to_string(pages) + " pages, asked " + std::to_string(asked) + " times";
  });
  if (child.said.starts_with("skip: ")) {
    GTEST_SKIP() << child.said;
  }
  EXPECT_EQ(child.said, "fine");
}

// As when the kernel finds no 2 MiB in one piece.
TEST(WithoutCollapse, RangesThatAreRefusedAreListed) {
  const auto child = test::run_in_child([]() -> std::string {
    if (const std::string reason = test::intercept_system_calls(); !reason.empty()) {
      return "skip: " + reason;
    }
    int calls = 0;
    test::decide_system_calls(
        [&](const SystemCall& call) { return is_collapse(call) && ++calls % 2 == 0 ? ENOMEM : 0; });
    auto arena = Arena::create({.name = "subject", .capacity = 256_MiB});
    std::vector<char*> blocks;
    fill_without_huge_pages(*arena, blocks);
    // From here on the odd ranges only, so that the freeze finds and misses some.
    test::decide_system_calls([&](const SystemCall& call) {
      return is_collapse(call) && (call.arguments[1] > 2_MiB || call.arguments[0] / 2_MiB % 2 == 0)
                 ? ENOMEM
                 : 0;
    });
    if (!arena->freeze()) {
      return "the freeze failed";
    }
    const ArenaStats stats = arena->stats();
    const bool listed = std::all_of(stats.huge_page_misses.begin(), stats.huge_page_misses.end(),
                                    [](const HugePageMiss& miss) { return miss.error == ENOMEM; });
    if (!listed || stats.huge_page_misses.empty() || stats.huge_page_bytes == 0 ||
        stats.huge_page_misses.size() * std::size_t{2_MiB} + stats.huge_page_bytes +
                stats.returned_bytes !=
            stats.used) {
      return std::to_string(stats.huge_page_misses.size()) + " misses of " +
             std::to_string(stats.used / 2_MiB) + ", huge " + std::to_string(stats.huge_page_bytes);
    }
    return holds_what_was_filled(blocks) ? "fine" : "other bytes";
  });
  if (child.said.starts_with("skip: ")) {
    GTEST_SKIP() << child.said;
  }
  EXPECT_EQ(child.said, "fine");
}

TEST(FailingSystemCalls, AChannelWithoutBarriersIsRefusedEachTime) {
  const auto result = test::run_in_child([]() -> std::string {
    if (const std::string reason = test::intercept_system_calls(); !reason.empty()) {
      return "skip: " + reason;
    }
    auto channel = Channel<int>::create();
    test::decide_system_calls(
        [](const SystemCall& call) { return call.number == SYS_membarrier ? EPERM : 0; });
    const auto first = channel->try_send(1);
    const auto again = channel->try_send(1);
    test::decide_system_calls(nullptr);
    const auto allowed = channel->try_send(1);
    const auto refused = [](const Expected<void>& sent) {
      return !sent && sent.error().code == ErrorCode::unsupported &&
             sent.error().system_errno == EPERM;
    };
    return !refused(first)   ? "the first send was not refused"
           : !refused(again) ? "the second send was not refused"
           : !allowed        ? allowed.error().message
                             : "";
  });
  if (result.said.starts_with("skip: ")) {
    GTEST_SKIP() << result.said;
  }
  EXPECT_EQ(result.said, "");
  EXPECT_EQ(result.exit_code, 0) << "signal " << result.signal;
}

}  // namespace
}  // namespace cowshed
