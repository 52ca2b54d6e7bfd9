#include <malloc.h>

#include <cowshed/cow/code_reader/code_reader_process.h>
#include <cowshed/cow/language.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/tests/support/scale.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kBlocks = 401;  // the last is kept: none is freed at the top
constexpr std::size_t kBytes = 40'000;
constexpr std::size_t kKept = 8;  // one in so many

using Blocks = std::vector<char*>;

Blocks allocate() {
  Blocks blocks;
  for (std::size_t i = 0; i < kBlocks; ++i) {
    blocks.push_back(static_cast<char*>(std::malloc(kBytes)));
    std::memset(blocks.back(), 1, kBytes);
  }
  return blocks;
}

void free_most(const Blocks& blocks) {
  for (std::size_t i = 0; i < blocks.size(); ++i)
    if (i % kKept != 0) std::free(blocks[i]);
}

void free_rest(const Blocks& blocks) {
  for (std::size_t i = 0; i < blocks.size(); i += kKept) std::free(blocks[i]);
}

// The memory of a copy of this process, which stands still.
class Copied {
 public:
  Copied() : pid_(::fork()) {
    if (pid_ == 0)
      for (;;) ::pause();
    const ProcFiles proc;
    memory_ = proc.open(pid_, "mem").value();
    for (const Mapping& each : proc.maps(pid_).value()) {
      if (!each.writable || !each.is_private || each.path == "[stack]") continue;
      const bool is_data = each.has_file() && is_c_library(each.file_path());
      if (each.has_file() && !is_data) continue;
      std::vector<std::byte> bytes(each.bytes());
      if (::pread(memory_.get(), bytes.data(), bytes.size(), static_cast<off_t>(each.begin)) !=
          static_cast<ssize_t>(bytes.size()))
        continue;
      parts_.push_back({each.begin, each.end, is_data});
      bytes_.push_back(std::move(bytes));
    }
  }
  ~Copied() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Copied(const Copied&) = delete;
  Copied& operator=(const Copied&) = delete;

  std::optional<FreeMemory> free_pages() const {
    return free_pages_of_glibc(parts_, [this](std::uint64_t address, std::span<std::byte> to) {
      for (std::size_t i = 0; i < parts_.size() && !to.empty(); ++i) {
        if (!parts_[i].has(address)) continue;
        const std::size_t bytes = std::min(to.size(), parts_[i].end - address);
        std::memcpy(to.data(), bytes_[i].data() + (address - parts_[i].begin), bytes);
        to = to.subspan(bytes);
        address += bytes;
      }
      return to.empty();
    });
  }
  // Of the block's whole pages, those that are free; all can be trimmed.
  static std::size_t free_part(const char* block, const std::vector<FreePages>& free) {
    const auto begin = (std::bit_cast<std::uint64_t>(block) + 64 + kPageSize - 1) / kPageSize;
    const auto end = (std::bit_cast<std::uint64_t>(block) + kBytes - 64) / kPageSize;
    std::size_t pages = 0;
    for (std::uint64_t page = begin; page < end; ++page)
      pages += std::ranges::any_of(free, [&](const FreePages& each) {
        return each.begin <= page * kPageSize && page * kPageSize < each.end;
      });
    return pages;
  }
  const FileDescriptor& memory() const { return memory_; }
  std::vector<std::vector<std::byte>>& bytes() { return bytes_; }
  const std::vector<HeapPart>& parts() const { return parts_; }

 private:
  pid_t pid_;
  FileDescriptor memory_;
  std::vector<HeapPart> parts_;
  std::vector<std::vector<std::byte>> bytes_;
};

class GlibcHeap : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cowshed::test::kSanitized) GTEST_SKIP() << "a sanitizer has a malloc of its own";
  }
};

bool can_trim(const FreePages& pages) { return pages.in == FreeIn::malloc; }

void expect_what_was_freed(const Blocks& blocks) {
  const std::vector<FreePages> free = Copied().free_pages().value().pages;
  for (std::size_t i = 0; i < blocks.size(); ++i)
    if (i % kKept == 0) EXPECT_EQ(Copied::free_part(blocks[i], free), 0U) << i;
    else EXPECT_GE(Copied::free_part(blocks[i], free), kBytes / kPageSize - 2) << i;
  EXPECT_TRUE(std::ranges::any_of(free, can_trim));
}

TEST_F(GlibcHeap, BlocksThatWereFreedAreFreeAndNoOthers) {
  const Blocks blocks = allocate();
  EXPECT_EQ(Copied::free_part(blocks[1], Copied().free_pages().value().pages), 0U);
  free_most(blocks);
  expect_what_was_freed(blocks);
  free_rest(blocks);
}

TEST_F(GlibcHeap, AMappingMayEndInABlock) {
  const Blocks blocks = allocate();
  free_most(blocks);
  const auto page = std::bit_cast<std::uint64_t>(blocks[kBlocks / 2]) / kPageSize * kPageSize;
  ASSERT_EQ(::madvise(std::bit_cast<void*>(page), kBytes * kBlocks / 4, MADV_DONTDUMP), 0);
  expect_what_was_freed(blocks);
  free_rest(blocks);
}

// Of blocks that meet there is one size, that of all together: the used one behind them tells.
TEST_F(GlibcHeap, BlocksOfKnownSizeHaveAThresholdToMapThem) {
  constexpr std::size_t kSmall = 3000;
  constexpr int kLargest = 32 << 20;  // that is permitted
  const auto threshold_of = [](std::size_t bytes, std::size_t kept, std::size_t kept_bytes) {
    ::mallopt(M_MMAP_THRESHOLD, kLargest);
    std::vector<Blocks> all(2);
    for (std::size_t i = 0; i < 400; ++i)
      all[static_cast<std::size_t>(i % kept == 0)].push_back(
          static_cast<char*>(std::malloc(i % kept == 0 ? kept_bytes : bytes)));
    all[1].push_back(static_cast<char*>(std::malloc(kSmall)));
    for (char* each : all[0]) std::free(each);
    const std::uint64_t threshold = Copied().free_pages().value().mmap_threshold;
    for (char* each : all[1]) std::free(each);
    ::malloc_trim(0);
    return threshold;
  };
  EXPECT_EQ(threshold_of(70'000, 2, kSmall), 64U << 10);
  EXPECT_EQ(threshold_of(70'000, 8, 70'000), 64U << 10);
  EXPECT_EQ(threshold_of(200'000, 8, 200'000), 128U << 10);
  EXPECT_EQ(threshold_of(9000, 50, 9000), 0U);
}

TEST_F(GlibcHeap, OfAThreadsArenaTheTopCannotBeTrimmed) {
  std::thread([] {
    const Blocks blocks = allocate();
    free_most(blocks);
    expect_what_was_freed(blocks);
    free_rest(blocks);
    const std::vector<FreePages> free = Copied().free_pages().value().pages;
    EXPECT_FALSE(std::ranges::all_of(free, can_trim));
  }).join();
}

TEST_F(GlibcHeap, IsReadInAProcessOfItsOwn) {
  const Blocks blocks = allocate();
  free_most(blocks);
  const Copied copied;
  CodeReaderProcess reader(
      [](CodeReader::BinaryId, FileKind, const std::string&) { return FileDescriptor(); });
  const auto free = reader.free_pages(copied.memory(), copied.parts()).value().pages;
  EXPECT_GE(Copied::free_part(blocks[1], free), kBytes / kPageSize - 2);
  EXPECT_EQ(free.size(), copied.free_pages()->pages.size());
  EXPECT_FALSE(reader.free_pages(FileDescriptor(), copied.parts()));
  free_rest(blocks);
}

TEST_F(GlibcHeap, OfAHostileHeapNoMoreIsFreeThanThereIs) {
  const Blocks blocks = allocate();
  free_most(blocks);
  Copied copied;
  std::mt19937_64 random(1);
  std::uint64_t all = 0;
  for (const HeapPart& part : copied.parts()) all += part.end - part.begin;
  for (int round = 0; round < 300; ++round) {
    for (int change = 0; change < 20; ++change) {
      // Where the heads and the blocks are, and values that lead there.
      const std::size_t which = random() % copied.parts().size();
      std::vector<std::byte>& bytes = copied.bytes()[which];
      const HeapPart& target = copied.parts()[random() % copied.parts().size()];
      const std::uint64_t value =
          random() % 4 == 0 ? std::uint64_t{1} << random() % 64
                            : target.begin + random() % (target.end - target.begin) / 16 * 16;
      std::memcpy(bytes.data() + random() % (bytes.size() / 8) * 8, &value, sizeof value);
    }
    std::uint64_t sum = 0;
    std::uint64_t last = 0;
    for (const FreePages& each : copied.free_pages().value_or(FreeMemory()).pages) {
      EXPECT_GE(each.begin, last);
      sum += each.end - each.begin;
      last = each.end;
    }
    EXPECT_LE(sum, all);
  }
  free_rest(blocks);
}

// free() puts them into fast bins, and joins them later: malloc_trim(3) does.
TEST_F(GlibcHeap, SmallBlocksAreFreeBeforeTheyAreJoined) {
  constexpr std::size_t kSmall = 100;
  constexpr std::size_t kMany = 100'000;
  const auto free_bytes = [] {
    std::uint64_t bytes = 0;
    const auto free = Copied().free_pages().value();
    for (const FreePages& each : free.pages) bytes += each.end - each.begin;
    return bytes;
  };
  Blocks blocks;
  for (std::size_t i = 0; i < kMany; ++i) blocks.push_back(static_cast<char*>(std::malloc(kSmall)));
  const std::uint64_t most = free_bytes() + kMany * kSmall;
  for (std::size_t i = 0; i < kMany; ++i)
    if (i % 1000 != 0) std::free(blocks[i]);
  EXPECT_GE(free_bytes(), most - kMany * kSmall / 10);
  for (std::size_t i = 0; i < kMany; i += 1000) std::free(blocks[i]);
}

}  // namespace
}  // namespace cowshed::cow
