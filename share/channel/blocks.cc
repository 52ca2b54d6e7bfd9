#include <algorithm>
#include <bit>
#include <cerrno>
#include <fcntl.h>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

#include <cowshed/share/channel/segment.h>
#include <cowshed/share/os/huge_pages.h>
#include <cowshed/share/os/memory_limits.h>
#include <cowshed/share/os/sync.h>

namespace cowshed::internal {

using namespace channel_layout;

namespace {

constexpr std::uint64_t kKept = 4U << 20U;      // of each size, what keeps its memory when free
constexpr std::uint32_t kSmallClasses = 8;      // to 512 KiB
constexpr std::uint64_t kPiece = 64U << 20U;    // a signal undoes one fallocate(2), not all
constexpr std::uint64_t kReserve = 16U << 20U;  // of the cgroup's headroom, left to others

std::atomic<std::uint32_t>& backed_pages(std::byte* base, const Plan& plan, std::uint32_t block) {
  return reinterpret_cast<std::atomic<std::uint32_t>*>(base + plan.backed)[block];
}

}  // namespace

std::uint32_t ChannelSegment::class_of(std::uint32_t block) const {
  const auto* end = plan_.first.data() + plan_.classes;
  return static_cast<std::uint32_t>(std::upper_bound(plan_.first.data(), end, block) -
                                    plan_.first.data() - 1);
}

tl::unexpected<Error> ChannelSegment::cannot_map(std::uint32_t block, int error) const {
  return system_error(": mmap of " + std::to_string(plan_.region_bytes(class_of(block))) +
                          " bytes, for messages of this size",
                      error);
}

std::uint64_t ChannelSegment::block_offset(std::uint32_t block) const {
  const std::uint32_t c = class_of(block);
  return plan_.region[c] + (block - plan_.first[c]) * (kPage << c);
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
    munmap(mine, bytes);
    mine = others;
  }
  return mine;
}

std::uint64_t ChannelSegment::take_block(std::uint32_t block, std::uint64_t size) {
  const std::uint64_t pages =
      pages_of(word(block).load(std::memory_order_relaxed), std::uint64_t{1} << class_of(block));
  if (size > pages * kPage) return 0;
  const std::uint64_t mine = block_word(BlockState::owned, self(), pages);
  word(block).store(mine, std::memory_order_release);
  return mine;
}

std::uint32_t ChannelSegment::blocks_used(std::uint32_t block_class) const {
  return control_->seldom.blocks_used[block_class].load(plan_.first[block_class + 1] -
                                                        plan_.first[block_class]);
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

std::uint64_t ChannelSegment::outstanding_pages() const {
  std::uint64_t pages = 0;
  for (std::uint32_t c = 0; c < plan_.classes; ++c) pages += pages_in(c);
  return pages;
}

// Whether more is outstanding than may be.  Looking at every word is exact, and is done when a
// bound does not tell: small blocks count as used that ever were.
bool ChannelSegment::memory_exceeded() const {
  std::uint64_t bound = 0;
  for (std::uint32_t c = 0; c < plan_.classes; ++c)
    if (c < kSmallClasses) bound += std::uint64_t{blocks_used(c)} << c;
    else bound += pages_in(c);
  return bound > plan_.most_pages && outstanding_pages() > plan_.most_pages;
}

// A free block of that size, now owned; or plan().blocks.
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

Expected<ChannelSegment::Block> ChannelSegment::allocate(std::uint64_t size) {
  const std::uint64_t pages = std::max<std::uint64_t>(round_up(size, kPage) / kPage, 1);
  const std::uint64_t mine = block_word(BlockState::owned, self(), pages);
  std::uint32_t block = plan_.blocks;
  for (auto c = static_cast<std::uint32_t>(std::bit_width(pages - 1));
       c < plan_.classes && block == plan_.blocks; ++c) {
    block = claim_block(c, mine);
  }
  if (block == plan_.blocks) return make_error(ErrorCode::would_block, "no block now");
  if (memory_exceeded()) {
    free_block(block, mine);
    return make_error(ErrorCode::would_block, "no memory now");
  }
  const Block allocated = {block, mine, block_data(block)};
  if (allocated.data == nullptr) {
    auto refused = cannot_map(block, errno);
    free_block(block, mine);
    return refused;
  }
  if (auto backed = back(allocated, pages); !backed) {
    free_block(block, mine);
    return tl::make_unexpected(std::move(backed.error()));
  }
  return allocated;
}

// A look costs some 100 us, so a large enough headroom stands for a while.
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

// What lies wholly in these bytes of the block: a quarter of the time to take them, and 512 times
// fewer faults for who writes and who reads.  Whether it is worth going on.
bool ChannelSegment::take_huge_pages(const Block& block, std::uint64_t begin,
                                     std::uint64_t end) const {
  const std::uint64_t first = round_up(begin, kHuge);
  const std::uint64_t last = end / kHuge * kHuge;
  if (first >= last) return true;
  for (std::uint64_t place = first; place < last; place += kHuge) {  // an empty one is refused
    if (fallocate(descriptors_.segment, 0, static_cast<off_t>(block_offset(block.index) + place),
                  kPage) != 0) {
      return false;
    }
  }
  return collapse_range(reinterpret_cast<std::uintptr_t>(block.data + first), last - first) == 0;
}

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
    if (fallocate(descriptors_.segment, 0, static_cast<off_t>(offset + begin + done),
                  static_cast<off_t>(piece)) == 0) {
      done += piece;
    } else if (const int reason = errno; reason == ENOSPC || reason == ENOMEM) {
      return error(
          ErrorCode::out_of_memory,
          ": the kernel has no " + std::to_string(bytes) + " bytes more; send less at a time",
          reason);
    } else if (reason != EINTR) {
      return system_error(": fallocate", reason);
    }
  }
  backed.store(static_cast<std::uint32_t>(pages), std::memory_order_relaxed);
  return {};
}

bool ChannelSegment::keeps_memory(std::uint32_t block) const {
  const std::uint32_t c = class_of(block);
  return (block - plan_.first[c] + 1) * (kPage << c) <= kKept;
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

}  // namespace cowshed::internal
