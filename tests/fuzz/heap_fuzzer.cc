#include <cowshed/cow/code_reader/heaps.h>

#include "mutation.h"

// Hostile heaps of malloc() and of pymalloc.  The input is a list of writes to heaps that are
// sound.
namespace {

using namespace cowshed;
using cow::FreePages;
using fuzz::must;

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kLists = 127;
constexpr std::size_t kMostReads = 400'000;  // of a question: some tenths of a second

struct Write {
  std::uint32_t place;
  std::uint8_t where;
  std::uint8_t how;
  std::uint16_t shift;
  std::uint64_t value;
};

// Data, with the lists of malloc() and a pointer to the arenas of Python; a heap with blocks and
// the list of arenas; and the arenas.
class Heaps {
 public:
  Heaps() {
    for (std::uint64_t i = 0; i < kLists; ++i) set_list(i, list(i), list(i));
    const std::uint64_t block = kHeapAt + 2 * kPage;
    constexpr std::uint64_t kBytes = 4 * kPage;
    set_list(100, block, block);
    set(block + 8, kBytes | 1);
    set(block + 16, list(100));
    set(block + 24, list(100));
    set(block + kBytes, kBytes);
    set(kDataAt + 96, block + 2 * kBytes);  // the top
    set(block + 2 * kBytes + 8, 3 * kPage | 1);
    set(kDataAt + 8, kHeapAt + 64);
    for (std::uint64_t i = 0; i < kArenas; ++i) add_arena(i);
    sound_ = bytes_;
  }

  void write(const Write& write) {
    const cow::HeapPart& at = heap(write.where);
    std::uint64_t place = at.begin + write.place % (at.end - at.begin) / 8 * 8;
    if ((write.where & 4) != 0)
      place = at.begin + write.place % ((at.end - at.begin) / kPage) * kPage + write.shift % 8 * 8;
    const cow::HeapPart& target = heap(write.how >> 4U);
    std::uint64_t value = write.value;
    switch (write.how % 6) {
      case 0: break;
      case 1: value = target.begin + value % (target.end - target.begin); break;
      case 2: value = target.begin + value % (target.end - target.begin) / kPage * kPage; break;
      case 3: value = (std::uint64_t{1} << write.shift % 64) - value % 2; break;
      case 4: value = word(target.begin + value % (target.end - target.begin) / 8 * 8); break;
      default: value %= 64;
    }
    set(place, value);
    written_.push_back(place);
  }
  void restore() {
    for (const std::uint64_t place : std::exchange(written_, {}))
      std::memcpy(bytes_.data() + offset(place), sound_.data() + offset(place), sizeof place);
  }

  bool read(std::uint64_t address, std::span<std::byte> to) {
    must(++reads_ < kMostReads);
    for (const cow::HeapPart& part : kParts) {
      if (address < part.begin || address >= part.end) continue;
      if (part.end - address < to.size()) return false;
      std::memcpy(to.data(), bytes_.data() + offset(address), to.size());
      return true;
    }
    return false;
  }
  void begin() { reads_ = 0; }

  static constexpr std::uint64_t kDataAt = 0x5000'0000;
  static constexpr std::uint64_t kHeapAt = 0x6000'0000;
  static constexpr std::uint64_t kArenasAt = 0x7000'0000;
  static constexpr std::uint64_t kArenas = 4;
  static constexpr std::uint64_t kArenaBytes = 64 * kPage;
  static constexpr std::uint64_t kArenasEnd = kArenasAt + kArenas * kArenaBytes;
  static constexpr std::array kParts = {cow::HeapPart{kDataAt, kDataAt + kPage, true, true},
                                        cow::HeapPart{kHeapAt, kHeapAt + 16 * kPage},
                                        cow::HeapPart{kArenasAt, kArenasEnd}};

 private:
  static constexpr std::uint64_t kListsAt = kDataAt + 112;
  static const cow::HeapPart& heap(unsigned number) { return kParts[number % 4 % kParts.size()]; }
  static std::uint64_t list(std::uint64_t number) { return kListsAt + number * 16 - 16; }
  static std::size_t offset(std::uint64_t address) {
    if (address >= kArenasAt) return address - kArenasAt + 17 * kPage;
    return address >= kHeapAt ? address - kHeapAt + kPage : address - kDataAt;
  }
  std::uint64_t word(std::uint64_t address) const {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes_.data() + offset(address), sizeof value);
    return value;
  }
  template <class T>
  void set(std::uint64_t address, T value) {
    std::memcpy(bytes_.data() + offset(address), &value, sizeof value);
  }
  void set_list(std::uint64_t number, std::uint64_t first, std::uint64_t last) {
    set(list(number) + 16, first);
    set(list(number) + 24, last);
  }
  // Its second and third pools are free, and the last 32 were never used.
  void add_arena(std::uint64_t place) {
    const std::uint64_t begin = kArenasAt + place * kArenaBytes;
    const std::uint64_t object = kHeapAt + 64 + place * 48;
    set(object, begin);
    set(object + 8, begin + 32 * kPage);
    set(object + 16, std::uint64_t{34} | std::uint64_t{64} << 32U);
    set(object + 24, begin + kPage);
    for (std::uint64_t i = 0; i < 32; ++i) {
      const std::uint64_t pool = begin + i * kPage;
      const bool is_free = i == 1 || i == 2;
      set(pool, std::uint64_t{is_free ? 0U : 1U});
      set(pool + 16, i == 1 ? pool + kPage : 0);
      set(pool + 32, place | std::uint64_t{1} << 32U);
      set(pool + 44, static_cast<std::uint32_t>(kPage - 32));
    }
  }

  std::vector<std::byte> bytes_ = std::vector<std::byte>((17 + 64 * kArenas) * kPage);
  std::vector<std::byte> sound_;
  std::vector<std::uint64_t> written_;
  std::size_t reads_ = 0;
};

std::uint64_t check(const std::vector<FreePages>& pages) {
  std::uint64_t last = 0;
  std::uint64_t bytes = 0;
  for (const FreePages& each : pages) {
    must(each.begin >= last && each.begin < each.end && each.begin % kPage == 0 &&
         each.end % kPage == 0);
    must(std::ranges::any_of(Heaps::kParts, [&](const cow::HeapPart& part) {
      return each.begin >= part.begin && each.end <= part.end;
    }));
    last = each.end;
    bytes += each.end - each.begin;
  }
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Heaps heaps;
  static const std::vector<cow::HeapPart> parts(Heaps::kParts.begin(), Heaps::kParts.end());
  const cow::ReadMemory read = [](std::uint64_t address, std::span<std::byte> to) {
    return heaps.read(address, to);
  };
  const bool is_sound = size == 0;
  heaps.restore();
  for (; size >= sizeof(Write); data += sizeof(Write), size -= sizeof(Write)) {
    Write write{};
    std::memcpy(&write, data, sizeof write);
    heaps.write(write);
  }
  heaps.begin();
  const auto of_malloc = cow::free_pages_of_glibc(parts, read);
  const std::uint64_t in_malloc = check(of_malloc.value_or(cow::FreeMemory()).pages);
  heaps.begin();
  const auto of_python = cow::free_pages_of_python(parts, read);
  const std::uint64_t in_python = check(of_python.value_or(std::vector<FreePages>()));
  must(!is_sound || (in_malloc == 6 * kPage && in_python == 4 * 34 * kPage));
  return 0;
}
