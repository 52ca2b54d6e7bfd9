#include <sys/eventfd.h>

#include <cowshed/share/channel.h>

#include "mutation.h"

// The input is a channel's constants and a list of words to write into its memory: into a real
// channel with messages in it, before it is opened or while it is used, as a hostile process could.
namespace {

using namespace cowshed;
using fuzz::must;
using namespace channel_layout;

struct Patch {
  std::uint8_t region;
  std::uint8_t later;  // its lowest bit: while the channel is used
  std::uint16_t index;
  std::uint32_t low;
  std::uint32_t high;
};
static_assert(sizeof(Patch) == 12);

// What a real channel's file holds, with messages in slots and in blocks.
struct Model {
  Constants constants;
  std::vector<std::byte> bytes;  // but its blocks

  Model() {
    auto channel = Channel<Bytes>::create({.name = "fuzzed", .slots = 4, .memory = 1U << 20U});
    must(channel.has_value());
    for (const std::size_t size : {10UL, 5000UL, 200UL})
      must(channel->try_send(std::vector<std::byte>(size)).has_value());
    const int file = channel->descriptors().segment;
    must(pread(file, &constants, sizeof(constants), 0) == sizeof(constants));
    bytes.resize(Plan(constants).base_bytes);
    must(pread(file, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  }
};

const Model& model() {
  static const Model made;
  return made;
}

constexpr std::uint64_t kWord = 8;

// Where a patch goes, in the file that these constants describe.
std::uint64_t place_of(const Patch& patch, const Plan& plan) {
  const std::uint64_t index = patch.index;
  switch (patch.region % 6) {
    case 0: return kPage + index % (offsetof(Control, parties) / kWord) * kWord;
    case 1: return kPage + offsetof(Control, parties) + index % 8 * kWord;
    case 2: return kPage + offsetof(Control, hands) + index % 8 * kWord;
    case 3: return plan.ring + index % (4 * sizeof(ByteSlot) / kWord) * kWord;
    case 4: return Plan::kWords + index % 600 * kWord;
    default: return Plan::kWords + index % ((plan.base_bytes - Plan::kWords) / kWord + 1) * kWord;
  }
}

void apply(std::span<const Patch> patches, bool later, const Plan& plan, int file) {
  for (const Patch& patch : patches) {
    const std::uint64_t value = std::uint64_t{patch.high} << 32U | patch.low;
    if ((patch.later & 1U) == (later ? 1U : 0U)) {
      const std::uint64_t place = std::min(place_of(patch, plan), plan.bytes - kWord);
      must(pwrite(file, &value, sizeof(value), static_cast<off_t>(place)) == sizeof(value));
    }
  }
}

void touch(std::span<std::byte> bytes) {
  if (!bytes.empty()) {
    bytes.front() ^= std::byte{1};
    bytes.back() ^= std::byte{1};
  }
}

void use(Channel<Bytes>& channel, std::span<const Patch> patches, const Plan& plan, int file) {
  std::vector<Bytes> kept;
  const auto receive = [&] {
    if (auto bytes = channel.try_receive()) {
      touch(bytes->span());
      kept.push_back(std::move(*bytes));
    }
  };
  receive();
  apply(patches, true, plan, file);
  static_cast<void>(channel.stats());
  receive();
  if (auto buffer = channel.try_loan(70000)) {
    touch(buffer->span());
    static_cast<void>(std::move(*buffer).try_commit());
  }
  static_cast<void>(channel.try_send(std::vector<std::byte>(300)));
  static_cast<void>(channel.send(std::vector<std::byte>(3), std::chrono::milliseconds(1)));
  if (!kept.empty()) static_cast<void>(channel.try_send(std::move(kept.back())));
  kept.clear();
  for (int i = 0; i < 6; ++i) receive();
  static_cast<void>(channel.descriptor());
  receive();
  channel.close();
  receive();
  static_cast<void>(channel.stats());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::uint64_t kMostFile = std::uint64_t{1} << 32U;
  constexpr std::size_t kMostPatches = 32;
  Constants constants;
  if (size < sizeof(constants)) return 0;
  std::memcpy(&constants, data, sizeof(constants));
  std::vector<Patch> patches(std::min(kMostPatches, (size - sizeof(constants)) / sizeof(Patch)));
  if (!patches.empty())
    std::memcpy(patches.data(), data + sizeof(constants), patches.size() * sizeof(Patch));
  // As large as its constants say, where that is not absurd.
  Plan plan(model().constants);
  if (constants.slots > 0 && constants.slots <= 4096 && constants.slot_bytes > 0 &&
      constants.slot_bytes <= 4096 && constants.memory <= kMostFile) {
    plan = Plan(constants);
  }
  const int file = memfd_create("fuzzed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  const int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  must(file >= 0 && event >= 0 && ftruncate(file, static_cast<off_t>(plan.bytes)) == 0);
  const std::size_t most = std::min<std::uint64_t>(model().bytes.size(), plan.bytes);
  must(pwrite(file, model().bytes.data(), most, 0) == static_cast<ssize_t>(most) &&
       pwrite(file, &constants, sizeof(constants), 0) == sizeof(constants));
  apply(patches, false, plan, file);
  must(fcntl(file, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) == 0);
  auto channel = Channel<Bytes>::from_descriptors({file, event});
  if (channel) {
    use(*channel, patches, plan, file);
  } else {
    must(!channel.error().message.empty());
    close(file);
    close(event);
  }
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  std::minstd_rand random(seed);
  if (size < sizeof(Constants)) {
    must(most >= sizeof(Constants));
    std::memcpy(data, &model().constants, sizeof(Constants));
    size = sizeof(Constants);
  }
  if (random() % 8 == 0)
    return fuzz::mutate(data, size, most, seed, {{0, offsetof(Constants, name)}});
  if (random() % 2 == 0 && size + sizeof(Patch) <= most) {
    const std::uint64_t value = fuzz::extreme_number(random);
    const Patch patch = {static_cast<std::uint8_t>(random()), static_cast<std::uint8_t>(random()),
                         static_cast<std::uint16_t>(random() % 700),
                         static_cast<std::uint32_t>(value),
                         static_cast<std::uint32_t>(value >> 32U)};
    std::memcpy(data + size, &patch, sizeof(patch));
    return size + sizeof(patch);
  }
  return fuzz::mutate(data, size, most, seed, {{sizeof(Constants), most}});
}
