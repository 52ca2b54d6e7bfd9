#include <algorithm>
#include <bit>
#include <cerrno>
#include <memory>
#include <string>
#include <sys/mman.h>

#include <cowshed/base/try.h>
#include <cowshed/share/channel/segment.h>
#include <cowshed/share/os/huge_pages.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/share/os/memory_limits.h>
#include <cowshed/share/os/sync.h>

// Blocks: memory for messages that do not fit into a slot.  A block's class is the binary logarithm
// of its pages.
//
// A block's word says who owns it, and only its owner touches its memory.  The words are all the
// accounting there is, so no death can leave a wrong sum.
namespace cowshed::internal {

using namespace channel_layout;

namespace {

constexpr std::uint64_t kKept = 4U << 20U;      // bytes of each class that free blocks keep
constexpr std::uint32_t kSmallClasses = 8;      // up to 512 KiB
constexpr std::uint64_t kPiece = 64U << 20U;    // for one fallocate(2): a signal undoes the call
constexpr std::uint64_t kReserve = 16U << 20U;  // headroom of the cgroup that is left to others

std::atomic<std::uint32_t>& backed_pages(std::byte* base, const Plan& plan, std::uint32_t block) {
  return reinterpret_cast<std::atomic<std::uint32_t>*>(base + plan.backed)[block];
}

}  // namespace

// "allocate" in docs/explanation/channel-protocol.md.
Expected<ChannelSegment::Block> ChannelSegment::allocate(std::uint64_t size) {
  const std::uint64_t pages = std::max<std::uint64_t>(round_up(size, kPage) / kPage, 1);
  const std::uint64_t mine = block_word(BlockState::owned, self(), pages);
  std::uint32_t block = plan_.blocks;
  for (auto c = static_cast<std::uint32_t>(std::bit_width(pages - 1));
       c < plan_.classes && block == plan_.blocks; ++c) {
    block = claim_block(c, mine);
  }
  if (block == plan_.blocks) return make_error(ErrorCode::would_block, "no block now");
  const auto give_back = [&](const std::uint32_t* claimed) { free_block(*claimed, mine); };
  std::unique_ptr<const std::uint32_t, decltype(give_back)> claimed(&block, give_back);
  if (memory_exceeded()) return make_error(ErrorCode::would_block, "no memory now");
  const Block allocated = {block, mine, block_data(block)};
  if (allocated.data == nullptr) return map_error(block, errno);
  TRY_VOID(back(allocated, pages));
  (void)claimed.release();
  return allocated;
}

// Returns a block that was free and is now owned; plan().blocks if none was free.
std::uint32_t ChannelSegment::claim_block(std::uint32_t block_class, std::uint64_t mine) {
  const std::uint32_t count = plan_.first[block_class + 1] - plan_.first[block_class];
  auto& from = control_->free_from[block_class];
  const std::uint32_t start = from.load(count);
  for (std::uint32_t tried = 0; tried < count; ++tried) {
    const std::uint32_t i = start + tried < count ? start + tried : start + tried - count;
    const std::uint32_t block = plan_.first[block_class] + i;
    if (word(block).load(std::memory_order_relaxed) != 0) continue;
    control_->seldom.blocks_used[block_class].raise_to(i + 1);
    std::uint64_t nobody = 0;
    if (word(block).compare_exchange_strong(nobody, mine)) {
      from.store(i + 1);
      return block;
    }
  }
  return plan_.blocks;
}

// The sum of all words is exact but slow.  An upper bound comes first: it counts each small block
// that was ever used.
bool ChannelSegment::memory_exceeded() const {
  std::uint64_t bound = 0;
  for (std::uint32_t c = 0; c < plan_.classes; ++c)
    bound += c < kSmallClasses ? std::uint64_t{blocks_used(c)} << c : pages_in(c);
  return bound > plan_.most_pages && outstanding_pages() > plan_.most_pages;
}

std::uint64_t ChannelSegment::outstanding_pages() const {
  std::uint64_t pages = 0;
  for (std::uint32_t c = 0; c < plan_.classes; ++c) pages += pages_in(c);
  return pages;
}

std::uint64_t ChannelSegment::pages_in(std::uint32_t block_class) const {
  std::uint64_t pages = 0;
  const std::uint32_t used = blocks_used(block_class);
  for (std::uint32_t i = 0; i < used; ++i) {
    pages += pages_of(word(plan_.first[block_class] + i).load(std::memory_order_relaxed),
                      std::uint64_t{1} << block_class);
  }
  return pages;
}

std::uint32_t ChannelSegment::blocks_used(std::uint32_t block_class) const {
  return control_->seldom.blocks_used[block_class].load(plan_.first[block_class + 1] -
                                                        plan_.first[block_class]);
}

// Takes memory from the kernel for pages that have none yet.
Expected<void> ChannelSegment::back(const Block& block, std::uint64_t pages) {
  auto& backed = backed_pages(base_, plan_, block.index);
  const std::uint64_t had = backed.load(std::memory_order_relaxed);
  if (had >= pages) return {};
  const std::uint64_t bytes = (pages - had) * kPage;
  if (!has_headroom(bytes)) {
    return error(ErrorCode::out_of_memory, ": the machine or the memory cgroup has no " +
                                               std::to_string(bytes) +
                                               " bytes more; send less at a time");
  }
  if (!descriptor_is_ours()) return system_error(": its descriptor was closed", EBADF);
  const std::uint64_t begin = had * kPage;
  const std::uint64_t offset = block_offset(block.index);
  bool huge = true;
  for (std::uint64_t done = 0; done < bytes;) {
    const std::uint64_t piece = std::min(bytes - done, kPiece);
    huge = huge && take_huge_pages(block, begin + done, begin + done + piece);
    if (!allocate_pages(descriptors_.segment, offset + begin + done, piece)) {
      const int reason = errno;
      if (reason != ENOSPC && reason != ENOMEM) return system_error(": fallocate", reason);
      return error(
          ErrorCode::out_of_memory,
          ": the kernel has no " + std::to_string(bytes) + " bytes more; send less at a time",
          reason);
    }
    done += piece;
  }
  backed.store(static_cast<std::uint32_t>(pages), std::memory_order_relaxed);
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

// Backs each 2 MiB range that lies wholly in these bytes of the block by a huge page.  That takes a
// quarter of the time, and saves both sides 511 of 512 faults.  False: do not try more ranges.
bool ChannelSegment::take_huge_pages(const Block& block, std::uint64_t begin,
                                     std::uint64_t end) const {
  const std::uint64_t first = round_up(begin, kHuge);
  const std::uint64_t last = end / kHuge * kHuge;
  if (first >= last) return true;
  for (std::uint64_t at = first; at < last; at += kHuge)  // the kernel collapses no empty range
    if (!allocate_pages(descriptors_.segment, block_offset(block.index) + at, kPage)) return false;
  return collapse_range(reinterpret_cast<std::uintptr_t>(block.data + first), last - first) == 0;
}

void ChannelSegment::free_block(std::uint32_t block, std::uint64_t owned) {
  const std::uint32_t c = class_of(block);
  if (std::byte* data = keeps_memory(block) ? nullptr : block_data(block); data != nullptr) {
    backed_pages(base_, plan_, block).store(0, std::memory_order_relaxed);
    madvise(data, kPage << c, MADV_REMOVE);
  }
  if (word(block).compare_exchange_strong(owned, 0)) {
    control_->free_from[c].lower_to(block - plan_.first[c]);
    notify(control_->memory.event);
  }
}

std::uint64_t ChannelSegment::take_block(std::uint32_t block, std::uint64_t size) {
  const std::uint64_t pages =
      pages_of(word(block).load(std::memory_order_relaxed), std::uint64_t{1} << class_of(block));
  if (size > pages * kPage) return 0;
  const std::uint64_t mine = block_word(BlockState::owned, self(), pages);
  word(block).store(mine, std::memory_order_release);
  return mine;
}

std::byte* ChannelSegment::block_data(std::uint32_t block) {
  const std::uint32_t c = class_of(block);
  std::byte* region = regions_[c].load(std::memory_order_acquire);
  if (region == nullptr) region = map_class(c);
  return region == nullptr ? nullptr : region + (block - plan_.first[c]) * (kPage << c);
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
  return plan_.region[c] + (block - plan_.first[c]) * (kPage << c);
}

std::uint32_t ChannelSegment::class_of(std::uint32_t block) const {
  const auto* end = plan_.first.data() + plan_.classes;
  return static_cast<std::uint32_t>(std::upper_bound(plan_.first.data(), end, block) -
                                    plan_.first.data() - 1);
}

bool ChannelSegment::keeps_memory(std::uint32_t block) const {
  const std::uint32_t c = class_of(block);
  return (block - plan_.first[c] + 1) * (kPage << c) <= kKept;
}

}  // namespace cowshed::internal
