#include <algorithm>
#include <bit>
#include <cerrno>
#include <memory>
#include <optional>
#include <string>
#include <sys/mman.h>

#include <cowshed/base/memory_limits.h>
#include <cowshed/base/try.h>
#include <cowshed/share/channel/segment.h>
#include <cowshed/share/os/huge_pages.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/share/os/sync.h>

// Memory for messages: the blocks, for those that do not fit into a slot, and the chunks of the
// ring.
//
// A block's word says who owns it, and only its owner touches its memory.  The words are all the
// accounting there is, so no death can leave a wrong sum.
namespace cowshed::internal {

using namespace channel_layout;

namespace {

constexpr std::uint64_t kKept = 4U << 20U;      // bytes of each class that free blocks keep
constexpr std::uint32_t kSmallClasses = 12;     // up to 512 KiB
constexpr std::uint64_t kPiece = 64U << 20U;    // for one fallocate(2): a signal undoes the call
constexpr std::uint64_t kReserve = 16U << 20U;  // headroom of the cgroup that is left to others

std::uint32_t class_for(std::uint64_t size) {
  return static_cast<std::uint32_t>(
      std::bit_width((std::max(size, kLeastBlock) - 1) / kLeastBlock));
}

}  // namespace

struct ChannelSegment::Claimed {
  std::uint32_t index;
  std::uint32_t block_class;
  std::uint64_t word;
  std::uint64_t backed;  // pieces that have memory for certain
};

// "allocate" in docs/explanation/channel-memory.md.
Expected<ChannelSegment::Block> ChannelSegment::allocate(std::uint64_t size) {
  std::optional<Claimed> claimed;
  for (std::uint32_t c = class_for(size); c < plan_.classes && !claimed; ++c) {
    TRY(claimed, claim_block(c, (size + piece_bytes(c) - 1) / piece_bytes(c)));
  }
  if (!claimed) return make_error(ErrorCode::would_block, "no block now");
  const auto give_back = [&](const Claimed* block) {
    free_block(block->index, block->word, false);
  };
  std::unique_ptr<const Claimed, decltype(give_back)> held(&*claimed, give_back);
  if (memory_exceeded()) return make_error(ErrorCode::would_block, "no memory now");
  const Block block = {claimed->index, claimed->word,
                       block_data(claimed->index, claimed->block_class)};
  if (block.data == nullptr) return map_error(block.index, errno);
  const std::uint32_t c = claimed->block_class;
  if (const std::uint64_t pieces = pieces_of(block.word, c); pieces > claimed->backed) {
    TRY_VOID(take_memory(block_offset(block.index) + claimed->backed * piece_bytes(c),
                         (pieces - claimed->backed) * piece_bytes(c), &block));
  }
  (void)held.release();
  return block;
}

// Nothing if no block of this class is free.
Expected<std::optional<ChannelSegment::Claimed>> ChannelSegment::claim_block(
    std::uint32_t block_class, std::uint64_t pieces) {
  const std::uint32_t first = plan_.first[block_class];
  const std::uint32_t count = plan_.first[block_class + 1] - first;
  const std::uint32_t used = blocks_used(block_class);
  auto& from = control_->free_from[block_class];
  const std::uint32_t start = from.load(used);
  for (std::uint32_t tried = 0; tried < count; ++tried) {
    const std::uint32_t i = start + tried < count ? start + tried : start + tried - count;
    // The words come into use one after the other.  The first one in a page takes the page.
    if (const std::uint64_t place = Plan::kWords + (first + i) * sizeof(Word);
        i >= used && (i == 0 || place % kPage == 0)) {
      TRY_VOID(take_memory(place / kPage * kPage, kPage));
    }
    std::uint64_t before = word(first + i).load(std::memory_order_relaxed);
    if (state_of(before) != BlockState::free) continue;
    control_->seldom.blocks_used[block_class].raise_to(i + 1);
    // A block that has memory for more pieces counts as that many.
    const std::uint64_t backed = pieces_of(before, block_class);
    const std::uint64_t mine = block_word(BlockState::owned, self(), std::max(pieces, backed));
    if (word(first + i).compare_exchange_strong(before, mine)) {
      if (from.load(used) == start) from.store(i + 1);  // else a lower block became free
      return Claimed{first + i, block_class, mine, backed};
    }
  }
  return std::nullopt;
}

// The sum of all words is exact but slow.  An upper bound comes first: it counts each small block
// that was ever used.
bool ChannelSegment::memory_exceeded() const {
  std::uint64_t bound = 0;
  for (std::uint32_t c = 0; c < plan_.classes; ++c)
    bound += c < kSmallClasses ? blocks_used(c) * block_bytes(c) : bytes_in(c);
  return bound > plan_.most_bytes && outstanding_bytes() > plan_.most_bytes;
}

std::uint64_t ChannelSegment::outstanding_bytes() const {
  std::uint64_t bytes = 0;
  for (std::uint32_t c = 0; c < plan_.classes; ++c) bytes += bytes_in(c);
  return bytes;
}

std::uint64_t ChannelSegment::bytes_in(std::uint32_t block_class) const {
  std::uint64_t pieces = 0;
  const std::uint32_t used = blocks_used(block_class);
  for (std::uint32_t i = 0; i < used; ++i) {
    const std::uint64_t value = word(plan_.first[block_class] + i).load(std::memory_order_relaxed);
    if (state_of(value) != BlockState::free) pieces += pieces_of(value, block_class);
  }
  return pieces * piece_bytes(block_class);
}

std::uint32_t ChannelSegment::blocks_used(std::uint32_t block_class) const {
  return control_->seldom.blocks_used[block_class].load(plan_.first[block_class + 1] -
                                                        plan_.first[block_class]);
}

// "Ring" in docs/explanation/channel-memory.md.  False: the chunk's place has no memory.
bool ChannelSegment::enter_chunk(std::uint64_t chunk) {
  const std::uint64_t oldest =
      control_->head.value.load(std::memory_order_acquire) >> plan_.chunk_shift;
  const auto at = [&](std::uint64_t number) { return Place(place_of(number).load()); };
  std::uint32_t used = at(chunk - 1).used(plan_.places);
  std::uint32_t place = 0;
  // The last `used` chunks lie in different places.
  if (chunk - oldest < used) place = at(chunk - used).place(plan_.places);
  else if (used < plan_.places) place = used++;
  if (place >= control_->seldom.places_backed.load(plan_.places)) return false;
  place_of(chunk).store(Place(place, used).bits(), std::memory_order_release);
  return true;
}

Expected<void> ChannelSegment::back_chunk() {
  Bound& backed = control_->seldom.places_backed;
  const std::uint32_t place = backed.load(plan_.places - 1);
  TRY_VOID(take_memory(plan_.ring + place * plan_.chunk_bytes(), plan_.chunk_bytes()));
  backed.raise_to(place + 1);
  return {};
}

// Takes memory from the kernel for a range of the file; in huge pages, if the range is of a block.
Expected<void> ChannelSegment::take_memory(std::uint64_t offset, std::uint64_t bytes,
                                           const Block* block) {
  const auto refused = [&](int reason) {
    return error(ErrorCode::out_of_memory,
                 ": the machine or the memory cgroup has no " + std::to_string(bytes) +
                     " bytes more; free memory, or raise the limit",
                 reason);
  };
  if (!has_headroom(bytes)) return refused(0);
  if (!descriptor_is_ours()) return system_error(": its descriptor was closed", EBADF);
  bool huge = block != nullptr;
  for (const std::uint64_t end = offset + bytes; offset < end;) {
    const std::uint64_t next = std::min(offset + kPiece, end);
    huge = huge && take_huge_pages(*block, offset, next);
    if (!allocate_pages(descriptors_.segment, offset, next - offset)) {
      if (errno == ENOSPC || errno == ENOMEM) return refused(errno);
      return system_error(": fallocate", errno);
    }
    offset = next;
  }
  return {};
}

// Reading the limits takes some 100 us, so a large headroom is good for several blocks.
bool ChannelSegment::has_headroom(std::uint64_t bytes) {
  const auto wanted = static_cast<std::int64_t>(bytes);
  if (granted_.fetch_sub(wanted) >= wanted) return true;
  const std::uint64_t room =
      std::min(MemoryLimits::of_this_process().headroom(), available_memory());
  if (room < bytes + kReserve) {
    granted_ = 0;
    return false;
  }
  granted_ = static_cast<std::int64_t>(std::min((room - bytes - kReserve) / 4, kReserve));
  return true;
}

// Backs each 2 MiB range that lies wholly in this range of the file by a huge page.  That takes a
// quarter of the time, and saves both sides 511 of 512 faults.  False: do not try more ranges.
bool ChannelSegment::take_huge_pages(const Block& block, std::uint64_t begin,
                                     std::uint64_t end) const {
  const std::uint64_t first = round_up(begin, kHugePage);
  const std::uint64_t last = end / kHugePage * kHugePage;
  if (first >= last) return true;
  for (std::uint64_t at = first; at < last; at += kHugePage)  // the kernel collapses no empty range
    if (!allocate_pages(descriptors_.segment, at, kPage)) return false;
  const std::byte* const data = block.data + (first - block_offset(block.index));
  return collapse_range(reinterpret_cast<std::uintptr_t>(data), last - first) == 0;
}

void ChannelSegment::free_block(std::uint32_t block, std::uint64_t owned, bool backed) {
  const std::uint32_t c = class_of(block);
  if (!keeps_memory(block, c) && return_memory(block, c)) backed = false;
  const std::uint64_t free = backed ? with_state(owned, BlockState::free, 0) : 0;
  if (word(block).compare_exchange_strong(owned, free)) {
    control_->free_from[c].lower_to(block - plan_.first[c]);
    notify(control_->memory.event);
  }
}

// Blocks of less than a page share pages, so this claims the page's other blocks meanwhile.  False
// if one of them is in use, or the kernel refuses.
bool ChannelSegment::return_memory(std::uint32_t block, std::uint32_t block_class) {
  const std::uint32_t first = plan_.first[block_class];
  const auto sharing = static_cast<std::uint32_t>(kPage / piece_bytes(block_class));
  const std::uint32_t begin = block - (block - first) % sharing;
  if (begin + sharing > first + blocks_used(block_class)) return false;  // sweeps look no further
  const std::uint64_t mine = block_word(BlockState::owned, self(), 0);
  std::uint32_t end = begin;
  for (; end < begin + sharing; ++end) {
    if (end == block) continue;
    std::uint64_t before = word(end).load(std::memory_order_relaxed);
    if (state_of(before) != BlockState::free || !word(end).compare_exchange_strong(before, mine))
      break;
  }
  std::byte* const data = end == begin + sharing ? block_data(begin) : nullptr;
  const std::uint64_t bytes = std::max(block_bytes(block_class), kPage);
  const bool returned = data != nullptr && madvise(data, bytes, MADV_REMOVE) == 0;
  for (std::uint32_t other = begin; other < end; ++other) {
    std::uint64_t owned = mine;
    if (other != block) word(other).compare_exchange_strong(owned, 0);
  }
  control_->free_from[block_class].lower_to(begin - first);
  return returned;
}

std::uint64_t ChannelSegment::take_block(std::uint32_t block, std::uint64_t size) {
  const std::uint64_t before = word(block).load(std::memory_order_relaxed);
  const std::uint32_t c = class_of(block);
  const std::uint64_t pieces = pieces_of(before, c);
  if (state_of(before) == BlockState::free || size > pieces * piece_bytes(c)) return 0;
  const std::uint64_t mine = block_word(BlockState::owned, self(), pieces);
  word(block).store(mine, std::memory_order_release);
  return mine;
}

std::byte* ChannelSegment::block_data(std::uint32_t block, std::uint32_t c) {
  std::byte* region = regions_[c].load(std::memory_order_acquire);
  if (region == nullptr) region = map_class(c);
  return region == nullptr ? nullptr : region + (block - plan_.first[c]) * block_bytes(c);
}

std::byte* ChannelSegment::map_class(std::uint32_t block_class) {
  if (!descriptor_is_ours()) {
    errno = EBADF;
    return nullptr;
  }
  const std::uint64_t bytes = plan_.region_bytes(block_class);
  std::byte* mine = map_shared(descriptors_.segment, plan_.region[block_class], bytes);
  std::byte* others = nullptr;
  if (mine != nullptr && !regions_[block_class].compare_exchange_strong(others, mine)) {
    munmap(mine, bytes);  // another thread was faster
    mine = others;
  }
  return mine;
}

tl::unexpected<Error> ChannelSegment::map_error(std::uint32_t block, int error) const {
  return system_error(": mmap of " + std::to_string(plan_.region_bytes(class_of(block))) +
                          " bytes, for messages of this size",
                      error);
}

std::uint64_t ChannelSegment::block_offset(std::uint32_t block) const {
  const std::uint32_t c = class_of(block);
  return plan_.region[c] + (block - plan_.first[c]) * block_bytes(c);
}

std::uint32_t ChannelSegment::class_of(std::uint32_t block) const {
  const auto* end = plan_.first.data() + plan_.classes;
  return static_cast<std::uint32_t>(std::upper_bound(plan_.first.data(), end, block) -
                                    plan_.first.data() - 1);
}

bool ChannelSegment::keeps_memory(std::uint32_t block, std::uint32_t c) const {
  return (block - plan_.first[c] + 1) * block_bytes(c) <= kKept;
}

void ChannelSegment::unmap_block(std::uint32_t block, std::byte* data) const {
  const std::uint64_t bytes = block_bytes(class_of(block));
  if (bytes >= kPage) madvise(data, bytes, MADV_DONTNEED);
}

}  // namespace cowshed::internal
