#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <new>
#include <string>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/try.h>
#include <cowshed/share/channel/segment.h>
#include <cowshed/share/jemalloc/outside_scope.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/share/os/memory_limits.h>
#include <cowshed/share/os/sync.h>
#include <cowshed/share/process/published_layout.h>

namespace cowshed::internal {

using namespace channel_layout;

namespace {

constexpr int kSeals = F_SEAL_GROW | F_SEAL_SHRINK;

// More than anybody drains, and less than half of what an eventfd counts to.
constexpr std::uint64_t kForEver = std::uint64_t{1} << 62U;

std::atomic<std::uint64_t> last_serial = 0;

// That the plan can be computed, and is one that create_segment() makes.
bool plausible(const Constants& constants) {
  return constants.slots > 0 && constants.slots <= kMostSlots && constants.slot_bytes > 0 &&
         constants.slot_bytes % 8 == 0 && constants.slot_bytes <= kMostMemory &&
         constants.memory <= kMostMemory &&
         std::bit_ceil(constants.slots) <= kMostMemory / constants.slot_bytes;
}

// Memory that is unmapped unless somebody takes it over.
struct Unmap {
  std::uint64_t bytes;
  void operator()(void* memory) const { munmap(memory, bytes); }
};
using Mapping = std::unique_ptr<void, Unmap>;

tl::unexpected<Error> bad(const std::string& why) {
  return make_error(ErrorCode::bad_channel, "not a channel to be used: " + why);
}

Expected<Constants> read_constants(int file) {
  struct stat status{};
  if (fstat(file, &status) != 0) return system_error("a channel's descriptor", errno);
  if (const int seals = fcntl(file, F_GET_SEALS); seals < 0 || (seals & kSeals) != kSeals) {
    return make_error(ErrorCode::foreign_descriptor,
                      "descriptor " + std::to_string(file) +
                          " is not a channel's: no memfd that is sealed against a change of size");
  }
  Constants constants;
  if (pread(file, &constants, sizeof constants, 0) != sizeof constants || constants.magic != kMagic)
    return bad("descriptor " + std::to_string(file) + " does not begin like one");
  if (constants.version != kVersion) {
    return bad("it is of version " + std::to_string(constants.version) + ", this program's is " +
               std::to_string(kVersion) + "; use one version of Cowshed in all processes");
  }
  if (!plausible(constants) || Plan(constants).bytes != static_cast<std::uint64_t>(status.st_size))
    return bad("'" + layout::text_of(constants.name) + "' has a damaged header");
  return constants;
}

// One that never waits, as create_segment() makes it.
bool is_event(int descriptor) {
  std::array<char, 64> target{};
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  return readlink(path.c_str(), target.data(), target.size() - 1) > 0 &&
         std::string_view(target.data()) == "anon_inode:[eventfd]" &&
         (fcntl(descriptor, F_GETFL) & O_NONBLOCK) != 0;
}

}  // namespace

ChannelSegment::ChannelSegment(const ChannelDescriptors& descriptors, const Constants& constants,
                               std::byte* base, void* membership)
    : base_(base),
      control_(reinterpret_cast<Control*>(base + kPage)),
      membership_(static_cast<Membership*>(membership)),
      plan_(constants),
      serial_(++last_serial),
      options_{layout::text_of(constants.name), constants.slots, constants.memory},
      descriptors_(descriptors) {
  struct stat status{};
  if (fstat(descriptors_.segment, &status) == 0) {
    inode_ = status.st_ino;
    device_ = status.st_dev;
  }
}

ChannelSegment::~ChannelSegment() {
  detach();
  munmap(membership_, kPage);
  munmap(base_, plan_.reserved);
  for (std::uint32_t c = 0; c < plan_.classes; ++c)
    if (std::byte* region = regions_[c].load(); region != nullptr)
      munmap(region, plan_.region_bytes(c));
  ::close(descriptors_.segment);
  ::close(descriptors_.event);
}

namespace {

// Where a process's part in the channel is remembered: no forked child sees it.
Expected<Mapping> make_membership(const std::string& name) {
  void* memory = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return system_error("channel '" + name + "': mmap", errno);
  Mapping page(memory, {kPage});
  if (madvise(memory, kPage, MADV_WIPEONFORK) != 0)
    return system_error("channel '" + name + "': madvise(MADV_WIPEONFORK)", errno);
  return page;
}

// Takes the descriptors over if it succeeds.
Expected<std::shared_ptr<ChannelSegment>> make_segment(const ChannelDescriptors& descriptors,
                                                       const Constants& constants) {
  const std::string name = layout::text_of(constants.name);
  TRY(Mapping membership, make_membership(name));
  const std::uint64_t bytes = Plan(constants).reserved;
  std::byte* const memory = map_shared(descriptors.segment, 0, bytes);
  if (memory == nullptr) {
    return system_error("channel '" + name + "': mmap of " + std::to_string(bytes) + " bytes",
                        errno);
  }
  Mapping base(memory, {bytes});
  auto segment = std::make_shared<ChannelSegment>(descriptors, constants, memory, membership.get());
  membership.release();
  base.release();
  return segment;
}

}  // namespace

Expected<std::shared_ptr<ChannelSegment>> create_segment(const ChannelOptions& options,
                                                         const MessageType& type) {
  const OutsideScope outside;
  const std::string who = "channel '" + options.name + "'";
  Constants constants;
  constants.magic = kMagic;
  constants.version = kVersion;
  constants.type = type.id;
  constants.slot_bytes = type.slot_bytes;
  constants.slots = options.slots;
  constants.memory = type.blocks ? options.memory : 0;
  layout::set_text(constants.name, options.name);
  layout::set_text(constants.type_name, type.name);
  if (options.name.empty() || options.name.size() >= constants.name.size()) {
    return make_error(ErrorCode::invalid_argument,
                      "a channel needs a name of 1 to 63 bytes, not '" + options.name + "'");
  }
  if (!plausible(constants) || (type.blocks && options.memory == 0)) {
    return make_error(ErrorCode::invalid_argument,
                      who +
                          ": slots must be 1 to 2^24, memory 1 byte to 1 TiB, and all slots "
                          "together at most 1 TiB");
  }
  const Plan plan(constants);
  if (std::min(MemoryLimits::of_this_process().headroom(), available_memory()) < plan.reserved) {
    return make_error(
        ErrorCode::out_of_memory,
        who + ": no memory for " + std::to_string(plan.reserved) + " bytes; ask for fewer slots");
  }
  FileDescriptor file(
      memfd_create(("cowshed-channel:" + options.name).c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  FileDescriptor event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE));
  if (!file || !event) return system_error(who, errno);
  TRY_VOID(set_file_size(file.get(), plan.bytes, who));
  const long failed =
      TEMP_FAILURE_RETRY(fallocate(file.get(), 0, 0, static_cast<off_t>(plan.reserved)));
  if (const int reason = errno; failed != 0 && (reason == ENOSPC || reason == ENOMEM)) {
    return make_error(ErrorCode::out_of_memory,
                      who + ": the kernel has no memory for " + std::to_string(plan.reserved) +
                          " bytes; ask for fewer slots",
                      reason);
  }
  if (failed != 0 || pwrite(file.get(), &constants, sizeof constants, 0) != sizeof constants ||
      fcntl(file.get(), F_ADD_SEALS, kSeals | F_SEAL_SEAL) != 0) {
    return system_error(who + ": its memory", errno);
  }
  auto segment = make_segment({file.get(), event.get()}, constants);
  if (segment) {
    file.release();
    event.release();
    (*segment)->keep_place();
  }
  return segment;
}

Expected<std::shared_ptr<ChannelSegment>> open_segment(const ChannelDescriptors& descriptors,
                                                       const MessageType& type) {
  const OutsideScope outside;
  TRY(const Constants constants, read_constants(descriptors.segment));
  if (constants.type != type.id || constants.slot_bytes != type.slot_bytes ||
      (constants.memory != 0) != type.blocks) {
    return make_error(ErrorCode::wrong_type, "channel '" + layout::text_of(constants.name) +
                                                 "' is of " + layout::text_of(constants.type_name) +
                                                 ", not of " + std::string(type.name));
  }
  if (!is_event(descriptors.event)) {
    return make_error(ErrorCode::foreign_descriptor,
                      "descriptor " + std::to_string(descriptors.event) + " is not channel '" +
                          layout::text_of(constants.name) + "'s eventfd");
  }
  fcntl(descriptors.segment, F_SETFD, FD_CLOEXEC);
  fcntl(descriptors.event, F_SETFD, FD_CLOEXEC);
  return make_segment(descriptors, constants);
}

tl::unexpected<Error> ChannelSegment::error(ErrorCode code, const std::string& what,
                                            int system_errno) const {
  return make_error(code, "channel '" + options_.name + "'" + what, system_errno);
}
tl::unexpected<Error> ChannelSegment::system_error(const std::string& what, int error) const {
  return cowshed::system_error("channel '" + options_.name + "'" + what, error);
}
tl::unexpected<Error> ChannelSegment::closed_error() const {
  return error(ErrorCode::closed, " is closed, send no more");
}

void ChannelSegment::close() {
  std::uint32_t open = kOpen;
  control_->seldom.closed.compare_exchange_strong(open, kClosing);
  signal_event(kForEver);
  control_->seldom.closed.store(kClosed);
  for (auto* sleep : {&control_->items, &control_->space, &control_->memory})
    wake_all(sleep->event);
}

bool ChannelSegment::finish_closing() {
  if (control_->seldom.closed.load() == kClosing) close();
  return closed();
}

Expected<int> ChannelSegment::poll_descriptor() {
  std::atomic<std::uint32_t>& polled = control_->seldom.polled;
  if (polled.load() != kPolled) {
    std::uint32_t never = kNever;
    polled.compare_exchange_strong(never, kAsked);
    signal_event(1);  // for what was sent before
    polled.store(kPolled);
  }
  return descriptors_.event;
}

ChannelStats ChannelSegment::stats() {
  if (self() != 0 || join_as_observer()) sweep();
  ChannelStats stats;
  // Others commit meanwhile.  Only damage keeps this from an end.
  const auto look = [](auto&& is_stable) {
    for (int looks = 0; looks < 10'000 && !is_stable(); ++looks) {
    }
  };
  Totals sent;
  look([&] {
    stats.sent = control_->tail.value.load(std::memory_order_acquire);
    if (plan_.classes == 0 || stats.sent == 0) return true;
    sent = reinterpret_cast<const ByteSlot*>(slot(stats.sent - 1))->totals();
    return control_->tail.value.load(std::memory_order_acquire) - stats.sent < plan_.mask;
  });
  Totals received;
  look([&] {
    stats.received = control_->head.value.load(std::memory_order_acquire);
    const auto& totals = control_->received[stats.received % 2];
    received = {totals.bytes.load(std::memory_order_acquire),
                totals.moved.load(std::memory_order_acquire),
                totals.moved_bytes.load(std::memory_order_acquire)};
    return control_->head.value.load(std::memory_order_acquire) == stats.received;
  });
  if (plan_.classes == 0) {
    sent.bytes = stats.sent * plan_.slot_bytes;
    received.bytes = stats.received * plan_.slot_bytes;
  }
  stats.bytes_sent = sent.bytes;
  stats.bytes_received = received.bytes;
  stats.moved_sent = sent.moved;
  stats.moved_received = received.moved;
  stats.bytes_moved = sent.moved_bytes;
  stats.outstanding = outstanding_pages() * kPage;
  for (const Party& party : control_->parties) stats.processes += is_live(party.id.load()) ? 1 : 0;
  for (const Hand& hand : control_->hands) {
    const std::uint64_t owner = hand.owner.load();
    if (const std::uint64_t held = hand.held.load(); is_lost(owner))
      stats.lost.push_back({static_cast<std::int32_t>(owner), first_of(held), count_of(held)});
  }
  stats.lost_before = control_->seldom.lost_before.load();
  return stats;
}

}  // namespace cowshed::internal
