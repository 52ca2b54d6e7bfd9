#include <cowshed/share/arena_transfer.h>
#include <cowshed/share/immortal_ptr.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/tests/share/export/image_objects.h>
#include <cowshed/tests/share/share.h>
#include <cowshed/tests/support/folder.h>

namespace cowshed {

using namespace internal;

namespace {

using test::Node;
using test::sum_of;

struct Block {
  void* bytes;
  std::size_t size;
};

struct Filled {
  Node* first = nullptr;
  std::vector<Block> blocks;

  void free_all(std::pmr::memory_resource& memory) const {
    for (const auto& block : blocks) memory.deallocate(block.bytes, block.size, alignof(Node));
  }
};

// Linked nodes of 48 to 256 bytes and some of up to 64 KiB, `bytes` in all.
Filled fill(std::pmr::memory_resource& memory, std::size_t bytes) {
  Filled result;
  std::mt19937 random(1);
  for (std::size_t done = 0; done < bytes;) {
    const std::size_t size = random() % 1000 == 0 ? 4096 + random() % 61440 : 48 + random() % 209;
    auto* node = static_cast<Node*>(memory.allocate(size, alignof(Node)));
    std::memset(node, 1, size);
    node->next = result.first;
    node->value = 1;
    result.first = node;
    result.blocks.push_back({node, size});
    done += size;
  }
  return result;
}

class FreezeInMode : public testing::TestWithParam<FreezeMode> {};
COWSHED_EVERY_MODE(FreezeInMode);

TEST_P(FreezeInMode, AFreedBlockIsNeverHandedOutAgain) {
  Arena frozen = make_arena();
  const Filled filled = fill(*frozen.resource(), 4_MiB);
  ASSERT_TRUE(frozen.freeze(GetParam()));
  const auto job = [&]() -> std::string {
    filled.free_all(*frozen.resource());
    Arena fresh = make_arena();
    for (const auto& block : filled.blocks)
      if (frozen.contains(fresh.resource()->allocate(block.size))) return "frozen memory";
    return frozen.make<int>(1) ? "allocated" : "fine";
  };
  EXPECT_EQ(job(), "fine");
  EXPECT_EQ(run_in_child(job).said, "fine");
  EXPECT_THAT(frozen.make<int>(1), Fails(ErrorCode::arena_frozen, "arena 'index' is frozen"));
  EXPECT_THROW((void)frozen.resource()->allocate(8), ArenaBadAlloc);
}

int descriptor_of(const Arena& arena) {
  return test::descriptors_of("/memfd:cowshed:" + std::string(arena.name())).at(0);
}

// As after closefrom() in a program that then opens files of its own.
TEST_P(FreezeInMode, AForeignFileWithTheDescriptorsNumberStaysAsItIs) {
  const test::Folder folder;
  test::write_file(folder / "data", "data");
  for (const bool frozen : {false, true}) {
    auto arena = std::make_optional(make_arena());
    ASSERT_TRUE(arena->make<int>(1));
    if (frozen) ASSERT_TRUE(arena->freeze(GetParam()));
    const int number = descriptor_of(*arena);
    const int file = open((folder / "data").c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_EQ(dup2(file, number), number);
    if (frozen) {
      EXPECT_THAT(send_arena(file, *arena), FailsBy(EBADF, "its descriptor was closed"));
      ASSERT_TRUE(arena->thaw());
      EXPECT_TRUE(arena->make<int>(2));
      EXPECT_TRUE(arena->refreeze());
    } else {
      EXPECT_THAT(arena->freeze(GetParam()), FailsBy(EBADF, "its descriptor was closed"));
      EXPECT_THAT((arena->make<std::array<char, 4_MiB>>()),
                  FailsBy(EBADF, "its descriptor was closed"));
    }
    arena.reset();
    EXPECT_TRUE(test::contents_of(folder / "data") == "data");  // or too large to be printed
    EXPECT_EQ(close(number), 0);
    close(file);
  }
}

TEST(Freeze, FailsWhileSomebodyElseMapsItForWriting) {
  Arena arena = make_arena();
  int* value = value_of(arena.make<int>(1));
  void* other = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor_of(arena), 0);
  ASSERT_NE(other, MAP_FAILED);
  EXPECT_THAT(arena.freeze(), FailsBy(EBUSY, "somebody else maps it for writing"));
  *value = 3;  // still open
  EXPECT_TRUE(arena.make<int>(2));
  munmap(other, 4096);
  EXPECT_TRUE(arena.freeze());
  EXPECT_EQ(*value, 3);
}

TEST(Freeze, OthersMayReadMeanwhile) {
  Arena arena = make_arena(256_MiB);
  const Filled filled = fill(*arena.resource(), 64_MiB);
  std::atomic<bool> wrong = false;
  std::jthread reader([&](const std::stop_token& stop) {
    while (!stop.stop_requested())
      if (sum_of(filled.first) != filled.blocks.size()) wrong = true;
  });
  EXPECT_TRUE(arena.freeze());
  reader = {};
  EXPECT_FALSE(wrong);
}

// Sealing waits for whoever holds a page, as the kernel does for a moment now and then: here a
// pipe, into which the page itself was spliced.
class SealTest : public testing::Test {
 protected:
  SealTest() {
    EXPECT_EQ(pipe2(pipe_.data(), O_CLOEXEC), 0);
    EXPECT_EQ(ftruncate(file_.get(), 4096), 0);
    EXPECT_EQ(write(file_.get(), "x", 1), 1);
    off64_t begin = 0;
    EXPECT_EQ(splice(file_.get(), &begin, pipe_[1], nullptr, 4096, 0), 4096);
  }
  ~SealTest() override {
    for (const int end : pipe_) close(end);
  }

  void let_go() {
    std::array<char, 4096> page{};
    EXPECT_EQ(read(pipe_[0], page.data(), page.size()), 4096);
  }

  FileDescriptor file_ = make_memfd("seal", Sealable::yes);
  std::array<int, 2> pipe_{};
};

TEST_F(SealTest, WaitsLongerThanTheKernel) {
  ASSERT_NE(fcntl(file_.get(), F_ADD_SEALS, kSealed), 0);
  ASSERT_EQ(errno, EBUSY);
  std::jthread later([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    let_go();
  });
  EXPECT_TRUE(seal(file_.get())) << errno;
  EXPECT_TRUE(has_seals(file_.get(), kSealed));
}

struct Value {
  int value = 1;
};
struct ImmortalNode : Value {
  explicit ImmortalNode(ImmortalPtr<const ImmortalNode> its_next) : next(its_next) {}
  ImmortalPtr<const ImmortalNode> next;
};

TEST(ImmortalPtr, IsUsedLikeASharedPtr) {
  const ImmortalNode node(nullptr);
  ImmortalPtr<const ImmortalNode> pointer(&node);
  const ImmortalPtr<const Value> base = pointer;
  EXPECT_TRUE(pointer);
  EXPECT_EQ(pointer->value, 1);
  EXPECT_EQ(&*base, &node);
  EXPECT_FALSE(pointer->next);
  EXPECT_EQ(std::unordered_set<ImmortalPtr<const ImmortalNode>>{pointer}.count(pointer), 1U);
  pointer.reset();
  EXPECT_EQ(pointer, nullptr);
  const std::shared_ptr<const ImmortalNode> shared = ImmortalPtr<const ImmortalNode>(&node);
  EXPECT_EQ(shared.get(), &node);
  EXPECT_EQ(shared.use_count(), 0);
}

TEST(ImmortalPtr, Casts) {
  struct Shape {
    virtual ~Shape() = default;
  };
  struct Circle : Shape {};
  struct Square : Shape {};
  Circle circle;
  const ImmortalPtr<Shape> shape(&circle);
  EXPECT_EQ(static_pointer_cast<Circle>(shape).get(), &circle);
  EXPECT_EQ(dynamic_pointer_cast<Circle>(shape), shape);
  EXPECT_EQ(dynamic_pointer_cast<Square>(shape), nullptr);
  EXPECT_EQ(const_pointer_cast<Shape>(ImmortalPtr<const Shape>(shape)), shape);
  const ImmortalPtr<void> anything = shape;
  EXPECT_TRUE(anything);
  const std::shared_ptr<const Shape> shared = shape;
  EXPECT_EQ(shared.get(), &circle);
}

// ---- Threads that only allocate and deallocate, while the arena is frozen, thawed and frozen
// again.

// How a thread takes blocks and gives them back.
constexpr int kRoutes = 3;
void* allocate(Arena& arena, int route, std::size_t size) {
  return route == 0   ? arena.allocate(size)
         : route == 1 ? arena.resource()->allocate(size, 8)
                      : ArenaAllocator<char>().allocate(size);
}
void deallocate(Arena& arena, int route, const Block& block) {
  switch (route) {
    case 0: return arena.deallocate(block.bytes, block.size, 8);
    case 1: return arena.resource()->deallocate(block.bytes, block.size, 8);
    default: ArenaAllocator<char>().deallocate(static_cast<char*>(block.bytes), block.size);
  }
}

class Churn {
 public:
  explicit Churn(unsigned seed) : seed_(seed) {}

  void run() {
    auto threads = begin_threads(kRoutes, [this](int route) { churn(route); });
    for (int generation = 1; generation <= 2; ++generation) {
      // Of the open part and another thread's: so each thread's first free has to wait for us.
      for (int i = 0; i < 60; ++i) put({arena_.allocate(1000), 1000});
      turn_ = generation;
      while (begun_ < generation * kRoutes) std::this_thread::yield();
      EXPECT_THAT(generation == 1 ? arena_.freeze() : arena_.refreeze(), Succeeds());
      EXPECT_THAT(arena_.thaw(), Succeeds());
    }
    turn_ = kStop;
    threads.clear();
    std::vector<void*> kept;
    for (const Block& block : blocks_) kept.push_back(block.bytes);
    const auto stats = arena_.stats();
    EXPECT_EQ(stats.live_allocations - stats.dropped_frees, kept.size());
    std::sort(kept.begin(), kept.end());
    EXPECT_EQ(std::adjacent_find(kept.begin(), kept.end()), kept.end()) << "one block given twice";
  }

 private:
  static constexpr int kStop = 3;

  void churn(int route) {
    const UseArena use(arena_);
    std::mt19937 random(seed_ + static_cast<unsigned>(route));
    for (int turn = 1;; ++turn) {
      while (turn_ < turn) std::this_thread::yield();
      ++begun_;
      if (turn_ == kStop) return;
      for (int step = 0; step < 40; ++step) {
        if (random() % 2 == 0) {
          const std::size_t size = 40 + random() % 3000;
          const Error error = refusal_of([&] { put({allocate(arena_, route, size), size}); });
          EXPECT_TRUE(error.message == "allocated" || error.code == ErrorCode::arena_frozen)
              << error.message;
        } else if (Block block{}; take(random(), block)) {
          deallocate(arena_, route, block);
        }
      }
    }
  }

  // Blocks that any thread may give back.
  void put(const Block& block) {
    const std::lock_guard lock(mutex_);
    blocks_.push_back(block);
  }
  bool take(std::size_t index, Block& block) {
    const std::lock_guard lock(mutex_);
    if (blocks_.empty()) return false;
    std::swap(blocks_[index % blocks_.size()], blocks_.back());
    block = blocks_.back();
    blocks_.pop_back();
    return true;
  }

  unsigned seed_;
  Arena arena_ = make_arena(64_MiB, "index", false);
  std::mutex mutex_;
  std::vector<Block> blocks_;
  std::atomic<int> turn_ = 0;
  std::atomic<int> begun_ = 0;
};

// Ten times, so that a sanitizer comes through in time.
class FreesWhileThawing : public testing::TestWithParam<int> {};

TEST_P(FreesWhileThawing, AreCountedAndReachNoFrozenBlock) {
  SCOPED_TRACE("seed " + std::to_string(test::seed()));
  const int rounds = test::little_or(3, 1'000);
  for (int round = GetParam() * rounds; round < (GetParam() + 1) * rounds && !HasFailure(); ++round)
    Churn(test::seed() + 10 * static_cast<unsigned>(round)).run();
}

INSTANTIATE_TEST_SUITE_P(Rounds, FreesWhileThawing, testing::Range(0, 10));

}  // namespace
}  // namespace cowshed
