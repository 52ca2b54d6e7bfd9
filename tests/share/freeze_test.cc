

#include <cowshed/share/memfd.h>

#include "share.h"

namespace cowshed {
namespace {

const std::size_t kFill = test::little_or(64_MiB, 2_GiB);

struct Node {
  Node* next;
  std::uint64_t value;
};

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

std::uint64_t sum(const Node* node) {
  std::uint64_t total = 0;
  for (; node != nullptr; node = node->next) total += node->value;
  return total;
}

class FreezeInMode : public testing::TestWithParam<FreezeMode> {};
COWSHED_EVERY_MODE(FreezeInMode);

// Reads all, copies and drops references, frees everything: not one page becomes the child's own.
TEST_P(FreezeInMode, AChildThatReadsAndFreesCopiesNothing) {
  Arena arena = make_arena(kFill * 2);
  const Filled filled = fill(*arena.resource(), kFill);
  const auto frozen = arena.freeze(GetParam());
  ASSERT_TRUE(frozen) << frozen.error().message;
  const std::size_t used = arena.stats().used;
  const auto child = run_in_child([&]() -> std::string {
    if (sum(filled.first) != filled.blocks.size()) return "wrong sum";
    filled.free_all(*arena.resource());
    if (arena.stats().dropped_frees != filled.blocks.size()) return "frees not counted";
    return std::to_string(test::anonymous_kib(arena.base(), used)) + " KiB, " +
           std::to_string(test::own_pages(arena.base(), used)) + " pages";
  });
  EXPECT_EQ(child.said, "0 KiB, 0 pages");
  EXPECT_EQ(test::anonymous_kib(arena.base(), used), 0U);
  EXPECT_EQ(arena.stats().dropped_frees, 0U);  // the child's are the child's
}

// Like glibc's malloc: a freed block holds the link to the one freed before.
class FreeListThroughBlocks : public std::pmr::monotonic_buffer_resource {
 public:
  using std::pmr::monotonic_buffer_resource::monotonic_buffer_resource;

 private:
  void do_deallocate(void* block, std::size_t, std::size_t) override {
    *static_cast<void**>(block) = std::exchange(last_freed_, block);
  }

  void* last_freed_ = nullptr;
};

// The detector of the test above can fail: with such an allocator the same job over the same kind
// of mapping does copy.
TEST(Freeze, TheSameJobWithAnotherAllocatorCopiesPages) {
  const std::size_t size = 64_MiB;
  const int fd = memfd_create("heap", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(fd, static_cast<off_t>(size)), 0);
  void* heap = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ASSERT_NE(heap, MAP_FAILED);
  {
    FreeListThroughBlocks pool(heap, size, std::pmr::null_memory_resource());
    const Filled filled = fill(pool, 16_MiB);
    ASSERT_NE(mmap(heap, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0), MAP_FAILED);
    const auto child = run_in_child([&]() -> std::string {
      const std::size_t before = test::own_pages(heap, size);
      filled.free_all(pool);
      const std::size_t copied = test::own_pages(heap, size) - before;
      return copied * 4 == test::anonymous_kib(heap, size) && copied > 1000 ? "many" : "few";
    });
    EXPECT_EQ(child.said, "many");
  }
  munmap(heap, size);
  close(fd);
}

TEST(Freeze, OneLenientWriteCopiesOnePageForTheWriterOnly) {
  Arena arena = make_arena();
  const Filled filled = fill(*arena.resource(), 16_MiB);
  ASSERT_TRUE(arena.freeze(FreezeMode::lenient));
  const std::size_t used = arena.stats().used;
  const auto child = run_in_child([&] {
    (void)sum(filled.first);
    filled.first->value = 100;
    return std::to_string(test::own_pages(arena.base(), used)) + " pages, " +
           std::to_string(test::anonymous_kib(arena.base(), used)) + " KiB, sum " +
           std::to_string(sum(filled.first) - filled.blocks.size());
  });
  EXPECT_EQ(child.said, "1 pages, 4 KiB, sum 99");
  EXPECT_EQ(sum(filled.first), filled.blocks.size());
  EXPECT_EQ(test::own_pages(arena.base(), used), 0U);
}

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
}

TEST_P(FreezeInMode, AllocationAfterwardsIsAnError) {
  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze(GetParam()));
  EXPECT_THAT(arena.make<int>(1), Fails(ErrorCode::arena_frozen, "arena 'index' is frozen"));
  EXPECT_THROW((void)arena.resource()->allocate(8), ArenaBadAlloc);
}

TEST(Freeze, AgainIsNothingAndInTheOtherModeAnError) {
  Arena arena = make_arena();
  ASSERT_TRUE(arena.make<int>(1));
  ASSERT_TRUE(arena.freeze(FreezeMode::strict));
  EXPECT_TRUE(arena.freeze(FreezeMode::strict));
  EXPECT_THAT(arena.freeze(FreezeMode::lenient), Fails(ErrorCode::arena_frozen));
}

TEST(Freeze, WhatWasFreedIsGivenBack) {
  Arena arena = make_arena(512_MiB);
  void* freed = arena.allocate(100_MiB, 4096);
  auto* kept = static_cast<char*>(arena.allocate(20_MiB, 4096));
  std::memset(kept, 1, 20_MiB);
  arena.deallocate(freed, 100_MiB, 4096);
  EXPECT_GE(arena.stats().hole_bytes, 100_MiB);
  ASSERT_TRUE(arena.freeze());
  const ArenaStats stats = arena.stats();
  EXPECT_GE(stats.returned_bytes, 98_MiB);
  EXPECT_LE(stats.hole_bytes, 6_MiB);
  EXPECT_EQ(stats.live_bytes, 20_MiB);
  EXPECT_EQ(stats.live_allocations, 1U);
  EXPECT_EQ(stats.huge_page_bytes + stats.small_page_bytes + stats.returned_bytes, stats.used);
}

// A second descriptor of the arena's memory, as a foreign process might open one.
int open_again(const Arena& arena) {
  const auto found = test::descriptors_of("/memfd:cowshed:" + std::string(arena.name()));
  return open(("/proc/self/fd/" + std::to_string(found.at(0))).c_str(), O_RDWR | O_CLOEXEC);
}

TEST_P(FreezeInMode, NobodyCanWriteToTheSealedMemory) {
  Arena arena = make_arena();
  auto value = arena.make<int>(1);
  ASSERT_TRUE(value);
  const int fd = open_again(arena);
  ASSERT_GE(fd, 0);
  ASSERT_TRUE(arena.freeze(GetParam()));
  EXPECT_EQ(fcntl(fd, F_GET_SEALS) & (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL),
            F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
  EXPECT_EQ(pwrite(fd, "x", 1, 0), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
  EXPECT_EQ(ftruncate(fd, 0), -1);
  close(fd);
  const auto child = run_in_child([&] {
    void* page = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(*value) & ~4095UL);
    if (mprotect(page, 4096, PROT_READ | PROT_WRITE) != 0) return std::string("refused");
    **value = 2;
    return std::to_string(**value);
  });
  EXPECT_EQ(child.said, "2");
  EXPECT_EQ(**value, 1);
}

TEST(Freeze, FailsWhileSomebodyElseMapsItForWriting) {
  Arena arena = make_arena();
  auto value = arena.make<int>(1);
  ASSERT_TRUE(value);
  const int fd = open_again(arena);
  void* other = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ASSERT_NE(other, MAP_FAILED);
  const auto refused = arena.freeze();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().system_errno, EBUSY);
  EXPECT_THAT(refused.error().message, HasSubstr("somebody else maps it for writing"));
  **value = 3;  // still open
  EXPECT_TRUE(arena.make<int>(2));
  munmap(other, 4096);
  close(fd);
  EXPECT_TRUE(arena.freeze());
  EXPECT_EQ(**value, 3);
}

TEST(Freeze, OthersMayReadMeanwhile) {
  Arena arena = make_arena(256_MiB);
  const Filled filled = fill(*arena.resource(), 64_MiB);
  std::atomic<bool> stop = false;
  std::atomic<bool> wrong = false;
  std::thread reader([&] {
    while (!stop)
      if (sum(filled.first) != filled.blocks.size()) wrong = true;
  });
  EXPECT_TRUE(arena.freeze());
  stop = true;
  reader.join();
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

  Descriptor file_ = make_memfd("seal", Sealable::yes);
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

TEST_F(SealTest, SaysThatItIsBusy) {
  EXPECT_FALSE(seal(file_.get()));
  EXPECT_EQ(errno, EBUSY);
  EXPECT_FALSE(has_seals(file_.get(), F_SEAL_WRITE));
  let_go();
  EXPECT_TRUE(seal(file_.get()));
}

}  // namespace
}  // namespace cowshed
