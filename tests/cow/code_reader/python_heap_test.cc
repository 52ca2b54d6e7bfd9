#include <cowshed/cow/code_reader/code_reader_process.h>
#include <cowshed/cow/code_reader/heaps.h>
#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kArenaObjectWords = 6;

// A heap of pymalloc in this process, as if Python had it: each second pool of each arena is free,
// and the last eighth was never used.
class ForgedHeap {
 public:
  ForgedHeap(std::uint64_t arena, std::uint64_t pool, std::size_t arenas, std::uint64_t begin = 0)
      : pool_(pool), bytes_(arena * (arenas + 1)) {
    memory_ = static_cast<std::byte*>(::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    const std::uint64_t first = (address(memory_) + arena - 1) / arena * arena + begin;
    list_.resize(kArenaObjectWords * (arenas + 1));
    for (std::size_t i = 0; i + 1 < arenas; ++i) fill(i, first + i * arena, arena);
    data_ = {1, 0, address(list_.data()) + 2 * kArenaObjectWords * 8, 7};
  }
  ~ForgedHeap() { ::munmap(memory_, bytes_); }
  ForgedHeap(const ForgedHeap&) = delete;
  ForgedHeap& operator=(const ForgedHeap&) = delete;

  std::vector<HeapPart> parts() const {
    const auto part = [](const auto& values, bool is_data) {
      return HeapPart{address(values.data()), address(values.data() + values.size()), is_data};
    };
    HeapPart data = part(data_, true);
    data.is_of_python = is_of_python_;
    return {data, part(list_, false), {address(memory_), address(memory_) + bytes_}};
  }
  std::optional<std::vector<FreePages>> free_pages() const {
    return free_pages_of_python(parts(), [](std::uint64_t at, std::span<std::byte> to) {
      std::memcpy(to.data(), std::bit_cast<const void*>(at), to.size());
      return true;
    });
  }
  void set_of_another_program() { is_of_python_ = false; }
  std::uint64_t free_bytes() const { return free_bytes_; }
  std::uint64_t free_pools() const { return free_pools_; }
  std::uint64_t first_pool() const { return first_pool_; }
  template <class T>
  static void set(std::uint64_t at, T value) {
    std::memcpy(std::bit_cast<void*>(at), &value, sizeof value);
  }
  static constexpr std::uint64_t kUsedAt = 0;  // in the head of a pool
  static constexpr std::uint64_t kNextAt = 16;
  static constexpr std::uint64_t kArenaAt = 32;
  static constexpr std::uint64_t kClassAt = 36;
  static constexpr std::uint64_t kLastOffsetAt = 44;

 private:
  static std::uint64_t address(const void* pointer) {
    return std::bit_cast<std::uint64_t>(pointer);
  }

  void fill(std::size_t place, std::uint64_t begin, std::uint64_t bytes) {
    const std::uint64_t pools_at = (begin + pool_ - 1) / pool_ * pool_;
    const std::uint64_t pools = (begin + bytes - pools_at) / pool_;
    const std::uint64_t unused = pools_at + pools * 7 / 8 * pool_;
    std::uint64_t free = 0;
    std::uint64_t listed = 0;
    for (std::uint64_t at = pools_at; at < unused; at += pool_) {
      const bool is_free = (at - pools_at) / pool_ % 2 == 1;
      const std::uint32_t size_class = is_free ? 3 : 31;
      set(at + kUsedAt, static_cast<std::uint32_t>(is_free ? 0 : 2));
      set(at + kArenaAt, static_cast<std::uint32_t>(place));
      set(at + kClassAt, size_class);
      set(at + kLastOffsetAt, static_cast<std::uint32_t>(pool_ - (size_class + 1) * 16));
      if (!is_free) continue;
      set(at + kNextAt, free);
      free = at;
      ++listed;
    }
    const std::uint64_t never = (pools_at + pools * pool_ - unused) / pool_;
    const std::uint64_t counts = (listed + never) | pools << 32U;
    const std::array<std::uint64_t, kArenaObjectWords> object = {begin, unused, counts, free, 0, 0};
    std::ranges::copy(object,
                      list_.begin() + static_cast<std::ptrdiff_t>(place * kArenaObjectWords));
    free_bytes_ += (listed + never) * pool_;
    free_pools_ += listed;
    if (place == 0) first_pool_ = pools_at;
  }

  bool is_of_python_ = true;
  std::uint64_t pool_;
  std::uint64_t bytes_;
  std::byte* memory_ = nullptr;
  std::vector<std::uint64_t> list_;
  std::array<std::uint64_t, 4> data_{};
  std::uint64_t free_bytes_ = 0;
  std::uint64_t free_pools_ = 0;
  std::uint64_t first_pool_ = 0;
};

std::uint64_t sum(const std::vector<FreePages>& pages) {
  std::uint64_t bytes = 0;
  for (const FreePages& each : pages) {
    EXPECT_EQ(each.in, FreeIn::pymalloc);
    bytes += each.end - each.begin;
  }
  return bytes;
}

TEST(PythonHeap, ItsFreePoolsAreFreeInAllVersions) {
  constexpr std::uint64_t kKiB = 1024;
  for (const auto& [arena, pool, begin] :
       {std::array<std::uint64_t, 3>{1024, 16, 0}, {1024, 16, 4}, {2048, 16, 0}, {256, 4, 0}}) {
    const ForgedHeap heap(arena * kKiB, pool * kKiB, 10, begin * kKiB);
    const auto free = heap.free_pages();
    ASSERT_TRUE(free) << arena;
    EXPECT_EQ(sum(*free), heap.free_bytes()) << arena << ' ' << begin;
  }
}

TEST(PythonHeap, APoolThatLiesEndsItsArenasList) {
  constexpr std::uint64_t kPool = 16 << 10;
  const auto after = [](std::uint64_t at, auto value) {
    const ForgedHeap heap(1 << 20, kPool, 10);
    // The 28th is the first in the list, of 28, before which 8 were never used.
    ForgedHeap::set(heap.first_pool() + 27 * kPool + at, value);
    return (heap.free_bytes() - sum(heap.free_pages().value())) / kPool;
  };
  constexpr std::uint64_t kHere = 0;
  EXPECT_EQ(after(ForgedHeap::kUsedAt, std::uint32_t{2}), 14U);
  EXPECT_EQ(after(ForgedHeap::kArenaAt, std::uint32_t{3}), 14U);
  EXPECT_EQ(after(ForgedHeap::kClassAt, std::uint32_t{33}), 14U);
  EXPECT_EQ(after(ForgedHeap::kLastOffsetAt, std::uint32_t{16}), 14U);
  EXPECT_EQ(after(ForgedHeap::kNextAt, kHere), 13U);
  EXPECT_EQ(after(ForgedHeap::kNextAt, ~kHere), 13U);
}

TEST(PythonHeap, WithoutArenasItIsNotKnown) {
  const ForgedHeap heap(1 << 20, 16 << 10, 3);
  ForgedHeap::set(heap.first_pool() + ForgedHeap::kLastOffsetAt, std::uint32_t{0});
  EXPECT_FALSE(heap.free_pages());
  ForgedHeap of_another(1 << 20, 16 << 10, 3);
  of_another.set_of_another_program();
  EXPECT_FALSE(of_another.free_pages());
}

// A message has no room for a word for each.
TEST(PythonHeap, ManyFreePoolsAreReadInAProcessOfItsOwn) {
  const ForgedHeap heap(1 << 20, 16 << 10, 400);
  ASSERT_GT(heap.free_pools(), 11'000U);
  const FileDescriptor memory = ProcFiles().open(::getpid(), "mem").value();
  CodeReaderProcess reader(
      [](CodeReader::BinaryId, FileKind, const std::string&) { return FileDescriptor(); });
  const auto free = reader.free_pages(memory, heap.parts());
  ASSERT_TRUE(free);
  EXPECT_EQ(sum(free->pages), heap.free_bytes());
}

}  // namespace
}  // namespace cowshed::cow
