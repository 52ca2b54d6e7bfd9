#include <cowshed/tests/share/arena/filled_arena.h>

#include "system_call_failures.h"

namespace cowshed {
namespace {

using test::decide_system_calls;
using test::SystemCall;

using test::described;
using test::FilledArena;

constexpr std::uint64_t kCollapse = 25;  // MADV_COLLAPSE, Linux 6.1
constexpr std::size_t kBlock = 256_KiB;
constexpr std::size_t kBlocks = 9;  // more than one of jemalloc's 2 MiB

class FailingSystemCalls : public testing::Test {
 protected:
  void SetUp() override {
    const auto child = run_in_child(test::intercept_system_calls);
    if (!child.said.empty()) GTEST_SKIP() << child.said;
  }
  // What the body says in a child in which decide_system_calls() has effect.
  static std::string in_child(const std::function<std::string()>& body) {
    const auto child = run_in_child([&] {
      (void)test::intercept_system_calls();
      return body();
    });
    return child.signal == 0 ? child.said : strsignal(child.signal);
  }
};

// What a process has that an arena could have left behind.
struct Footprint {
  std::size_t descriptors = 0;
  std::size_t arena_mappings = 0;  // by name, by place or by MADV_DONTFORK
  std::size_t bytes = 0;           // of address space

  std::string text() const {
    return std::to_string(descriptors) + " descriptors, " + std::to_string(arena_mappings) +
           " mappings, " + std::to_string(bytes) + " bytes";
  }
  static Footprint now() {
    Footprint result;
    result.descriptors = test::descriptors_of("").size();
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

// What each call may fail with.
constexpr std::array<std::pair<long, std::array<int, 3>>, 9> kErrors = {{
    {SYS_memfd_create, {EMFILE, ENOMEM, EINVAL}},
    {SYS_mmap, {ENOMEM, ENOMEM, ENOMEM}},  // jemalloc tells of no other
    {SYS_madvise, {ENOMEM, EINVAL, EAGAIN}},
    {SYS_fcntl, {EBUSY, EPERM, EBUSY}},
    {SYS_ftruncate, {ENOMEM, EINTR, EPERM}},
    {SYS_fallocate, {ENOSPC, ENOMEM, EINTR}},
    {SYS_membarrier, {ENOSYS, EPERM, ENOSYS}},
    {SYS_openat, {EMFILE, EACCES, ENOENT}},
    {SYS_ioctl, {ENOTTY, EINVAL, ENOTTY}},
}};

// Which calls fail.  Shared with the process that waits for the outcome.
struct Plan {
  int from;   // the number of the first that fails, of those that are counted
  int count;  // how many, of the same kind as the first
  std::atomic<int> seen, failed;
  SystemCall first;
  int error;

  void start() {
    seen = failed = 0;
    decide_system_calls([this](const SystemCall& call) { return decide(call); });
  }
  int reason() const { return failed > 0 ? error : 0; }
  std::string text() const {
    return "call " + std::to_string(from) + " " + test::describe(first) + " with " +
           std::strerror(error) + " x" + std::to_string(failed);
  }

 private:
  int decide(const SystemCall& call) {
    // Asking how much memory there is: memory_test has that.
    if (call.number == SYS_openat &&
        std::strncmp(reinterpret_cast<const char*>(call.arguments[1]), "/sys/", 5) == 0) {
      return 0;
    }
    const int number = seen++;
    if (number < from || failed >= count || (failed > 0 && call.number != first.number)) return 0;
    if (failed++ == 0) {
      first = call;
      const auto its = std::find_if(kErrors.begin(), kErrors.end(),
                                    [&](const auto& known) { return known.first == call.number; });
      error = its->second.at(static_cast<std::size_t>(number % 3));
      error = count > 1 && error == EINTR ? EIO : error;  // no signal comes for ever
    }
    return error;
  }
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
  Life(FreezeMode mode, Plan* plan) : mode_(mode), plan_(plan) {}

  // "" or what was wrong.  A short life is not thawed.
  std::string live(bool is_short = false) {
    if (plan_ != nullptr) plan_->start();
    (void)(grow_up() && (is_short || grow_old()));
    decide_system_calls(nullptr);
    arena_.reset();
    return problem_;
  }

 private:
  using Codes = std::span<const ErrorCode>;
  static constexpr std::array kMemory = {ErrorCode::out_of_memory, ErrorCode::system_call};
  static constexpr std::array kCall = {ErrorCode::system_call};
  static constexpr std::array kSystem = {ErrorCode::system_call, ErrorCode::out_of_memory,
                                         ErrorCode::unsupported};

  bool grow_up() { return create() && add() && publish() && freeze() && read(); }
  bool grow_old() {
    return write() && thaw() && add() && refreeze() && write() && refreeze() && look() && read() &&
           read_in_child();
  }

  bool wrong(const std::string& what) {
    if (problem_.empty()) problem_ = what;
    return false;
  }

  template <class Function>
  bool step(const char* name, Codes documented, Function function) {
    Expected<void> done = attempt(function);
    if (done) return check_stats(name);
    const Error error = done.error();
    if (std::find(documented.begin(), documented.end(), error.code) == documented.end())
      return wrong(std::string(name) + ": not documented: " + error.message);
    if (error.code == ErrorCode::system_call &&
        (plan_ == nullptr || error.system_errno != plan_->reason())) {
      return wrong(std::string(name) + ": another errno: " + error.message);
    }
    decide_system_calls(nullptr);
    if (!check_stats(name) || !read() || !allocate_if_open()) return false;
    done = attempt(function);
    return done
               ? check_stats(name)
               : wrong(std::string(name) + " once nothing fails any more: " + done.error().message);
  }

  template <class Function>
  static Expected<void> attempt(Function function) {
    try {
      if constexpr (std::is_void_v<decltype(function())>) function();
      else return function().map([](auto&&...) {});
      return {};
    } catch (const ArenaBadAlloc& failure) {
      return tl::make_unexpected(failure.error());
    } catch (const std::bad_alloc&) {
      return make_error(ErrorCode::out_of_memory, "std::bad_alloc");
    }
  }

  // What could not be frozen is as open as before, unless that failed too.
  bool allocate_if_open() {
    if (!arena_ || arena_->stats().frozen) return true;
    const auto added = attempt([this] { add_node(); });
    if (!added && added.error().code == ErrorCode::arena_frozen && plan_->failed > 1) return true;
    return added ? read() : wrong("allocation after the error: " + added.error().message);
  }

  bool create() {
    return step("create", kSystem, [this] {
      return Arena::create({.name = "subject", .capacity = 512_GiB}).map([this](Arena&& arena) {
        arena_ = std::move(arena);
      });
    });
  }

  void add_node() {
    first_ = new (arena_->allocate(sizeof(Node))) Node{first_, ++nodes_ + added_, {}};
  }

  // Nodes, and between them blocks that make the arena grow.
  bool add() {
    const auto add_nodes = [this] {
      for (int many = 0; many < 500; ++many) add_node();
    };
    const auto add_block = [this] {
      auto* block = static_cast<char*>(arena_->allocate(kBlock, 4096));
      blocks_.push_back(block);
      std::memset(block, static_cast<int>(blocks_.size()), kBlock);
    };
    for (std::size_t i = 0; i < kBlocks; ++i)
      if (!step("a node", kMemory, add_nodes) || !step("a block", kMemory, add_block)) return false;
    // Something to give back.
    return step("a block for a moment", kMemory,
                [this] { arena_->deallocate(arena_->allocate(4_MiB, 4096), 4_MiB, 4096); });
  }

  bool publish() {
    return step("publish", kMemory, [this] { return cowshed::publish("first", first_); });
  }
  bool freeze() {
    return step("freeze", kSystem, [this] { return arena_->freeze(mode_); });
  }
  bool thaw() {
    return step("thaw", kSystem, [this] { return arena_->thaw(); });
  }
  bool refreeze() {
    return step("refreeze", kSystem, [this] { return arena_->refreeze(); });
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
    return step("prefault", kCall, [this] { return arena_->prefault(); }) &&
           step("collapse", {}, [this] { return arena_->collapse(); }) &&
           step("private_bytes", kCall, [this]() -> Expected<void> {
             auto bytes = arena_->private_bytes();
             if (!bytes) return tl::make_unexpected(bytes.error());
             // What could not be mapped stays private until the next refreeze().
             if (*bytes != 0 && plan_ != nullptr && plan_->reason() != 0) {
               decide_system_calls(nullptr);
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
    for (const Node* node = first_; node != nullptr; node = node->next)
      if (node->value != value-- + added_) return wrong("a node has another value");
    if (value != 0) return wrong("nodes are missing");
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      for (std::size_t byte = 0; byte < kBlock; byte += 512)
        if (blocks_[i][byte] != static_cast<char>(i + 1)) return wrong("a block has other bytes");
    }
    return true;
  }

  bool read_in_child() {
    decide_system_calls(nullptr);
    const auto child = run_in_child([this]() -> std::string {
      return read() && *arena_->private_bytes() == 0 && find<Node>("first") ? "fine" : "wrong";
    });
    return child.said == "fine" || wrong("a child: " + child.said);
  }

  bool check_stats(const char* name) {
    if (!arena_) return true;
    const ArenaStats stats = arena_->stats();
    const std::size_t covered =
        stats.huge_page_bytes + stats.small_page_bytes + stats.returned_bytes;
    // Until a freeze, what was asked for and could not be had is no range of any kind.
    if (stats.frozen ? covered != stats.used : covered > stats.used) {
      return wrong(std::string(name) + ": stats() cover " + std::to_string(covered) + " of " +
                   std::to_string(stats.used) + " bytes");
    }
    return true;
  }

  FreezeMode mode_;
  Plan* plan_;
  std::string problem_;
  std::optional<Arena> arena_;
  Node* first_ = nullptr;
  std::uint64_t nodes_ = 0;
  std::uint64_t added_ = 0;
  std::vector<char*> blocks_;
};

constexpr int kForEver = 1 << 30;

class FailingOfALife : public FailingSystemCalls,
                       public testing::WithParamInterface<std::pair<FreezeMode, int>> {};
INSTANTIATE_TEST_SUITE_P(Modes, FailingOfALife,
                         testing::Values(std::pair(FreezeMode::strict, 1),
                                         std::pair(FreezeMode::lenient, 1),
                                         std::pair(FreezeMode::strict, kForEver),
                                         std::pair(FreezeMode::lenient, kForEver)),
                         [](const auto& test) {
                           const bool strict = test.param.first == FreezeMode::strict;
                           return std::string(strict ? "Strict" : "Lenient") +
                                  (test.param.second == 1 ? "Once" : "FromThenOn");
                         });

// Each call of an arena's life fails in turn, in one process; before and after, a life in which
// none fails shows what is usual.
TEST_P(FailingOfALife, GivesTheDocumentedErrorAndLeaksNothing) {
  const FreezeMode mode = GetParam().first;
  auto& plan = test::shared<Plan>();
  plan.count = GetParam().second;
  const std::string said = in_child([&]() -> std::string {
    for (int i = 0; i < 3; ++i)
      if (const std::string problem = Life(mode, nullptr).live(); !problem.empty())
        return "without a failure: " + problem;
    const Footprint warm = Footprint::now();
    (void)Life(mode, nullptr).live();
    Footprint before = Footprint::now();
    // 2 MiB for each jemalloc arena that there ever was, and for one that had to be made twice.
    const std::size_t usual = before.bytes - warm.bytes + 4_MiB;
    std::string problems;
    for (plan.from = 0;; ++plan.from) {
      std::string problem = Life(mode, &plan).live();
      if (plan.failed == 0) break;  // no call has this number
      const Footprint after = Footprint::now();
      const bool same = after.descriptors == before.descriptors &&
                        after.arena_mappings == before.arena_mappings &&
                        after.bytes <= before.bytes + usual;
      if (problem.empty() && !same) problem = "from " + before.text() + " to " + after.text();
      before = after;
      if (!problem.empty() && problems.size() < 2000)
        problems += plan.text() + ": " + problem + "\n";
    }
    return problems + std::to_string(plan.from) + " calls failed";
  });
  EXPECT_THAT(said, testing::MatchesRegex("[0-9][0-9][0-9]+ calls failed")) << plan.text();
}

// The same in processes that never had an arena, so that what is made only once fails too.
TEST_F(FailingSystemCalls, OfTheFirstArenaEver) {
  auto& plan = test::shared<Plan>();
  plan.count = 1;
  std::string said;
  for (; said != "done"; ++plan.from) {
    said = in_child([&]() -> std::string {
      const std::size_t descriptors = Footprint::now().descriptors;
      std::string problem = Life(FreezeMode::strict, &plan).live(true);
      if (plan.failed == 0) return "done";
      if (problem.empty()) problem = Life(FreezeMode::strict, nullptr).live();
      const Footprint after = Footprint::now();
      const std::size_t expected = descriptors + 1;  // the process tree's memfd stays
      if (problem.empty() && (after.descriptors != expected || after.arena_mappings != 0))
        problem = after.text() + " are left, " + std::to_string(expected) + " descriptors were";
      return problem;
    });
    ASSERT_TRUE(said.empty() || said == "done") << plan.text() << ": " << said;
  }
  EXPECT_GT(plan.from, 50);
}

// To put older generations together can wait, and is made up for.
TEST_F(FailingSystemCalls, ARefreezeDoesWithoutMemoryForOldData) {
  EXPECT_EQ(in_child([]() -> std::string {
              Arena arena = Arena::create({.name = "subject", .capacity = 256_MiB}).value();
              std::vector<std::size_t*> numbers;
              std::size_t used = 0;
              const auto add_generation = [&] {
                numbers.push_back(arena.make<std::size_t>(numbers.size()).value());
                const auto done = numbers.size() == 1 ? arena.freeze() : arena.refreeze();
                decide_system_calls(nullptr);
                used = arena.stats().used;
                return done && arena.thaw();
              };
              for (int i = 0; i < 20; ++i) {
                decide_system_calls([&](const SystemCall& call) {
                  const bool old = call.number == SYS_fallocate && call.arguments[2] < used;
                  return old && call.arguments[1] == 0 ? ENOSPC : 0;
                });
                if (!add_generation()) return "refused";
              }
              const std::size_t many = Footprint::now().descriptors;
              if (!add_generation()) return "refused without a failure";
              for (std::size_t i = 0; i < numbers.size(); ++i)
                if (*numbers[i] != i) return "another number";
              const std::size_t few = Footprint::now().descriptors;
              return many >= few + 15 ? "" : std::to_string(many) + " " + std::to_string(few);
            }),
            "");
}

bool is_collapse(const SystemCall& call) {
  return call.number == SYS_madvise && call.arguments[2] == kCollapse;
}

// "", or in what the ranges of a frozen arena are not as they should be.
std::string problem_of_ranges(FilledArena& filled, int error) {
  const ArenaStats stats = filled->stats();
  const std::size_t covered = stats.small_page_bytes + stats.huge_page_bytes + stats.returned_bytes;
  return stats.huge_page_error == error && covered == stats.used && stats.small_page_bytes > 0 &&
                 filled.reads_back()
             ? ""
             : std::to_string(stats.small_page_bytes) + " small of " + std::to_string(stats.used) +
                   ", huge " + std::to_string(stats.huge_page_bytes);
}

TEST_F(FailingSystemCalls, WithoutCollapseTheArenaHasSmallPagesAndSaysSo) {
  EXPECT_EQ(
      in_child([]() -> std::string {
        decide_system_calls([](const SystemCall& call) { return is_collapse(call) ? EINVAL : 0; });
        FilledArena filled(256_MiB);
        for (int i = 0; i < 160; ++i) filled.add_block();
        if (filled->stats().huge_page_bytes != 0 || !filled->freeze()) return "the freeze failed";
        const std::string problem = problem_of_ranges(filled, EINVAL);
        const auto reader = run_in_child([&]() -> std::string {
          return filled.reads_back() && *filled->private_bytes() == 0 && filled->prefault()
                     ? ""
                     : "wrong";
        });
        if (!(problem + reader.said).empty() || filled->stats().huge_page_bytes != 0 ||
            *filled->collapse() != 0) {
          return problem + ", a child reads: " + reader.said;
        }
        decide_system_calls(nullptr);
        const std::size_t later = *filled->collapse();
        return later == filled->stats().used && filled->stats().small_page_bytes == 0 &&
                       filled.reads_back()
                   ? ""
                   : std::to_string(later) + " bytes later";
      }),
      "");
}

// As when the kernel finds no 2 MiB in one piece.
TEST_F(FailingSystemCalls, RangesThatAreRefusedAHugePageAreCounted) {
  EXPECT_EQ(in_child([]() -> std::string {
              int calls = 0;
              decide_system_calls([&](const SystemCall& call) {
                return is_collapse(call) && ++calls % 2 == 0 ? ENOMEM : 0;
              });
              FilledArena filled(256_MiB);
              for (int i = 0; i < 160; ++i) filled.add_block();
              // From here on the odd ranges only, so that the freeze finds and misses some.
              decide_system_calls([&](const SystemCall& call) {
                const bool odd = call.arguments[1] > 2_MiB || call.arguments[0] / 2_MiB % 2 == 0;
                return is_collapse(call) && odd ? ENOMEM : 0;
              });
              if (!filled->freeze() || filled->stats().huge_page_bytes == 0)
                return "the freeze failed";
              return problem_of_ranges(filled, ENOMEM);
            }),
            "");
}

TEST_F(FailingSystemCalls, WithoutCollapseAChannelsBufferHasAllItsMemoryInSmallPages) {
  EXPECT_EQ(in_child([] {
              int asked = 0;
              decide_system_calls([&](const SystemCall& call) {
                asked += is_collapse(call) ? 1 : 0;
                return is_collapse(call) ? EINVAL : 0;
              });
              auto channel = Channel<Bytes>::create({.name = "subject", .memory = 200_MiB});
              const auto pages = [&] {
                struct stat status{};
                fstat(channel->descriptors().segment, &status);
                return status.st_blocks / 8;
              };
              const auto before = pages();
              const auto buffer = channel->loan(130_MiB + 5);
              return std::to_string(pages() - before) + " pages, asked " + std::to_string(asked);
            }),
            // One page more has the block's word.
            std::to_string(130_MiB / 4096 + 2) + " pages, asked 1");
}

TEST_F(FailingSystemCalls, AChannelWithoutBarriersOrLocksIsRefusedEachTime) {
  const auto said_without = [](auto refused) {
    return in_child([&] {
      auto channel = Channel<int>::create();
      decide_system_calls([&](const SystemCall& call) { return refused(call) ? EPERM : 0; });
      const Error first = channel->try_send(1).error();
      const Error again = channel->try_send(1).error();
      decide_system_calls(nullptr);
      const bool allowed = channel->try_send(1).has_value();
      return described(first) + ", " + described(again) + (allowed ? ", sent" : "");
    });
  };
  EXPECT_EQ(said_without([](const SystemCall& call) { return call.number == SYS_membarrier; }),
            "unsupported 1, unsupported 1, sent");
  EXPECT_EQ(said_without([](const SystemCall& call) {
              return call.number == SYS_fcntl && call.arguments[1] == F_OFD_SETLK;
            }),
            "system_call 1, system_call 1, sent");
}

// ENOSPC and ENOMEM are what the file system says when the kernel has no more pages, under
// vm.overcommit_memory=2 or at a tmpfs's limit.
TEST_F(FailingSystemCalls, ARefusalOfPagesIsAnExceptionAndPasses) {
  for (const auto& [refused_by, says] :
       {std::pair(ENOSPC, "out_of_memory 12"), std::pair(ENOMEM, "out_of_memory 12"),
        std::pair(EPERM, "system_call 1")}) {
    const int refusal = refused_by;
    EXPECT_EQ(in_child([&]() -> std::string {
                FilledArena filled(256_MiB);
                int granted = 0;
                decide_system_calls([&](const SystemCall& call) {
                  return call.number == SYS_fallocate && ++granted > 20 ? refusal : 0;
                });
                const Error error = filled.fill();
                // Asking often must not use up the capacity.
                for (int i = 0; i < 100; ++i) {
                  const Error again = refusal_of([&] { (void)filled->allocate(16_MiB, 4096); });
                  if (again.code != error.code) return again.message;
                }
                const bool whole = filled.reads_back();
                decide_system_calls(nullptr);
                const Error later = filled.fill();
                return described(error) + ", later " + described(later) +
                       (whole && filled.bytes() >= 200_MiB ? ", " : ", too little, ") +
                       filled.goes_on();
              }),
              says + std::string(", later capacity_exceeded 0, fine"));
  }
}

TEST_F(FailingSystemCalls, AShortageOfPagesIsAnErrorOfAChannel) {
  EXPECT_EQ(in_child([] {
              auto channel = Channel<Bytes>::create().value();
              decide_system_calls(
                  [](const SystemCall& call) { return call.number == SYS_fallocate ? ENOSPC : 0; });
              const auto created = Channel<Bytes>::create();
              const auto buffer = channel.loan(1_MiB);
              const auto sent = channel.send(std::vector<std::byte>(1000));
              decide_system_calls(nullptr);
              return described(created.error()) + ", " + described(buffer.error()) + ", " +
                     described(sent.error()) + ", outstanding " +
                     std::to_string(channel.stats().outstanding);
            }),
            "out_of_memory 28, out_of_memory 28, out_of_memory 28, outstanding 0");
}

TEST_F(FailingSystemCalls, AShortageOfAddressSpaceIsAnError) {
  EXPECT_EQ(in_child([] {
              const rlimit limit = {4_GiB, 4_GiB};
              setrlimit(RLIMIT_AS, &limit);
              return described(Arena::create({.name = "subject", .capacity = 8_GiB}).error()) +
                     (Arena::create({.name = "small", .capacity = 1_GiB}) ? "" : "!");
            }),
            "system_call " + std::to_string(ENOMEM));
}

}  // namespace
}  // namespace cowshed
