#include <cerrno>
#include <fcntl.h>
#include <memory>
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
#include <cowshed/share/os/sync.h>
#include <cowshed/share/process/published_layout.h>

// Creates, opens, closes and describes a channel.
namespace cowshed::internal {

using namespace channel_layout;

namespace {

constexpr int kSeals = F_SEAL_GROW | F_SEAL_SHRINK;

// More than receivers can drain, and less than half of the eventfd's maximum.
constexpr std::uint64_t kForEver = std::uint64_t{1} << 62U;

std::atomic<std::uint64_t> last_serial = 0;

// Whether create_segment() makes such constants, so that Plan can be computed.
bool plausible(const Constants& constants) {
  return constants.slots > 0 && constants.slots <= kMostSlots && constants.slot_bytes > 0 &&
         constants.slot_bytes % 8 == 0 && constants.slot_bytes <= kMostMemory &&
         constants.memory <= kMostMemory &&
         std::bit_ceil(constants.slots) <= kMostMemory / constants.slot_bytes;
}

tl::unexpected<Error> bad(const std::string& why) {
  return make_error(ErrorCode::bad_channel, "not a channel to be used: " + why);
}

Expected<Constants> read_constants(int file) {
  struct stat status{};
  if (fstat(file, &status) != 0) return system_error("fstat of a channel's descriptor", errno);
  if (!has_seals(file, kSeals)) {
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

// Whether it is an eventfd that never blocks, as create_segment() makes it.
bool is_event(int descriptor) {
  std::array<char, 64> target{};
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  return readlink(path.c_str(), target.data(), target.size() - 1) > 0 &&
         std::string_view(target.data()) == "anon_inode:[eventfd]" &&
         (fcntl(descriptor, F_GETFL) & O_NONBLOCK) != 0;
}

// Memory for the process's membership.  A fork wipes it in the child.
Expected<MappedMemory> make_membership(const std::string& name) {
  void* memory = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return system_error("channel '" + name + "': mmap", errno);
  MappedMemory page(memory, {kPage});
  if (madvise(memory, kPage, MADV_WIPEONFORK) != 0)
    return system_error("channel '" + name + "': madvise(MADV_WIPEONFORK)", errno);
  return page;
}

// Owns the descriptors if it succeeds.
Expected<std::shared_ptr<ChannelSegment>> make_segment(const ChannelDescriptors& descriptors,
                                                       const Constants& constants) {
  const std::string name = layout::text_of(constants.name);
  TRY(MappedMemory membership, make_membership(name));
  const std::uint64_t bytes = Plan(constants).base_bytes;
  MappedMemory base(map_shared(descriptors.segment, 0, bytes), {bytes});
  if (base == nullptr) {
    return system_error("channel '" + name + "': mmap of " + std::to_string(bytes) + " bytes",
                        errno);
  }
  return std::make_shared<ChannelSegment>(descriptors, constants, std::move(base),
                                          std::move(membership));
}

Expected<Constants> constants_of(const ChannelOptions& options, const MessageType& type) {
  Constants constants;
  if (options.name.empty() || options.name.size() >= constants.name.size()) {
    return make_error(ErrorCode::invalid_argument,
                      "a channel needs a name of 1 to 63 bytes, not '" + options.name + "'");
  }
  constants.magic = kMagic;
  constants.version = kVersion;
  constants.type = type.id;
  constants.slot_bytes = type.slot_bytes;
  constants.slots = options.slots;
  constants.memory = type.blocks ? options.memory : 0;
  layout::set_text(constants.name, options.name);
  layout::set_text(constants.type_name, type.name);
  if (!plausible(constants) || (type.blocks && options.memory == 0)) {
    return make_error(ErrorCode::invalid_argument,
                      "channel '" + options.name +
                          "': slots must be 1 to 2^24, memory 1 byte to 1 TiB, and all slots "
                          "together at most 1 TiB");
  }
  return constants;
}

// The sealed file, without memory.
Expected<FileDescriptor> make_file(const Constants& constants, const std::string& who) {
  FileDescriptor file =
      make_memfd("cowshed-channel:" + layout::text_of(constants.name), Sealable::yes);
  if (!file) return system_error(who + ": memfd_create", errno);
  TRY_VOID(set_file_size(file.get(), Plan(constants).bytes, who));
  if (fcntl(file.get(), F_ADD_SEALS, kSeals | F_SEAL_SEAL) != 0)
    return system_error(who + ": fcntl(F_ADD_SEALS)", errno);
  return file;
}

}  // namespace

Expected<std::shared_ptr<ChannelSegment>> create_segment(const ChannelOptions& options,
                                                         const MessageType& type) {
  const OutsideScope outside;
  const std::string who = "channel '" + options.name + "'";
  TRY(const Constants constants, constants_of(options, type));
  TRY(FileDescriptor file, make_file(constants, who));
  FileDescriptor event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE));
  if (!event) return system_error(who + ": eventfd", errno);
  TRY(auto segment, make_segment({file.get(), event.get()}, constants));
  file.release();
  event.release();
  TRY_VOID(segment->begin(constants));
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

ChannelSegment::ChannelSegment(const ChannelDescriptors& descriptors, const Constants& constants,
                               MappedMemory base, MappedMemory membership)
    : base_mapping_(std::move(base)),
      membership_mapping_(std::move(membership)),
      base_(static_cast<std::byte*>(base_mapping_.get())),
      control_(reinterpret_cast<Control*>(base_ + kPage)),
      membership_(static_cast<Membership*>(membership_mapping_.get())),
      plan_(constants),
      serial_(++last_serial),
      options_{layout::text_of(constants.name), constants.slots, constants.memory},
      descriptors_(descriptors),
      segment_file_(identity_of(descriptors.segment)),
      event_file_(identity_of(descriptors.event)) {}

ChannelSegment::~ChannelSegment() {
  detach();
  for (std::uint32_t c = 0; c < plan_.classes; ++c)
    if (std::byte* region = regions_[c].load(); region != nullptr)
      munmap(region, plan_.region_bytes(c));
  if (event_is_ours()) ::close(descriptors_.event);
  if (descriptor_is_ours()) ::close(descriptors_.segment);
}

Expected<void> ChannelSegment::begin(const Constants& constants) {
  TRY_VOID(take_memory(0, Plan::kWords));
  *reinterpret_cast<Constants*>(base_) = constants;
  membership_->creator = true;
  return {};
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
  if (!event_is_ours()) return system_error(": its descriptor was closed", EBADF);
  std::atomic<std::uint32_t>& polled = control_->seldom.polled;
  if (polled.load() != kPolled) {
    std::uint32_t never = kNever;
    polled.compare_exchange_strong(never, kAsked);
    signal_event(1);  // for messages that were sent before
    polled.store(kPolled);
  }
  return descriptors_.event;
}

ChannelStats ChannelSegment::stats() {
  if (self() != 0 || attach()) sweep();
  ChannelStats stats;
  // Others commit meanwhile, so this reads until two readings agree.  The limit is for damage.
  const auto repeat_until = [](auto&& is_stable) {
    for (int i = 0; i < 10'000 && !is_stable(); ++i) {
    }
  };
  const bool has_blocks = plan_.classes != 0;
  Totals sent;
  repeat_until([&] {
    stats.sent = control_->tail.value.load(std::memory_order_acquire);
    if (!has_blocks || stats.sent == 0) return true;
    sent = reinterpret_cast<const ByteSlot*>(slot(stats.sent - 1))->totals();
    return control_->tail.value.load(std::memory_order_acquire) - stats.sent < plan_.chunk_mask;
  });
  Totals received;
  repeat_until([&] {
    stats.received = control_->head.value.load(std::memory_order_acquire);
    received = control_->received[stats.received % 2].totals.load();
    return control_->head.value.load(std::memory_order_acquire) == stats.received;
  });
  stats.bytes_sent = has_blocks ? sent.bytes : stats.sent * plan_.slot_bytes;
  stats.bytes_received = has_blocks ? received.bytes : stats.received * plan_.slot_bytes;
  stats.moved_sent = sent.moved;
  stats.moved_received = received.moved;
  stats.bytes_moved = sent.moved_bytes;
  stats.outstanding = outstanding_bytes();
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
