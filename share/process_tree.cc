#include <cerrno>
#include <random>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cowshed/share/file_size_limit.h>
#include <cowshed/share/memfd.h>
#include <cowshed/share/process_tree.h>

namespace cowshed::process_tree {
namespace {

constexpr std::array<char, 8> kMagic = {'C', 'o', 'w', 'T', 'r', 'e', 'e', '\0'};
constexpr std::uint32_t kVersion = 1;
constexpr int kSeals = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;

std::atomic<Shared*> own = nullptr;  // never unmapped
std::atomic<int> own_memfd = -1;

Expected<Shared*> map(int memfd) {
  void* memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd, 0);
  if (memory == MAP_FAILED) {
    return system_error("mapping what a process tree shares", errno);
  }
  return static_cast<Shared*>(memory);
}

void take(Shared* memory, Descriptor memfd) {
  const Descriptor before(own_memfd.exchange(memfd.release()));
  own.store(memory, std::memory_order_release);
}

}  // namespace

Expected<void> start() {
  if (own.load() != nullptr) {
    return {};
  }
  constexpr char kName[] = "cowshed-tree";
  Descriptor memfd = make_memfd(kName, Sealable::yes);
  if (!memfd) {
    return system_error("making what a process tree shares", errno);
  }
  if (auto sized = set_file_size(memfd.get(), sizeof(Shared), kName); !sized) {
    return sized;
  }
  if (fcntl(memfd.get(), F_ADD_SEALS, kSeals) != 0) {
    return system_error("sealing what a process tree shares", errno);
  }
  auto memory = map(memfd.get());
  if (!memory) {
    return tl::make_unexpected(std::move(memory.error()));
  }
  Shared& made = **memory;  // zeros, most of which take no memory
  made.magic = kMagic;
  made.version = kVersion;
  made.bytes = sizeof(Shared);
  std::random_device random;
  while (made.id == 0) {
    made.id = std::uint64_t{random()} << 32U | random();
  }
  take(*memory, std::move(memfd));
  return {};
}

std::uint64_t id() {
  const Shared* memory = own.load(std::memory_order_acquire);
  return memory == nullptr ? 0 : memory->id;
}

Shared& shared() { return *own.load(std::memory_order_acquire); }

int descriptor() { return own_memfd.load(); }

Expected<void> join(Descriptor memfd, std::uint64_t id, const std::string& who) {
  struct stat status{};
  const bool is_one = has_seals(memfd.get(), kSeals) && fstat(memfd.get(), &status) == 0 &&
                      status.st_size == sizeof(Shared);
  auto memory = is_one ? map(memfd.get()) : nullptr;
  if (!memory) {
    return tl::make_unexpected(std::move(memory.error()));
  }
  const Shared* there = *memory;
  if (there == nullptr || there->magic != kMagic || there->version != kVersion ||
      there->bytes != sizeof(Shared) || there->id != id) {
    if (there != nullptr) {
      munmap(*memory, sizeof(Shared));
    }
    return make_error(ErrorCode::foreign_descriptor,
                      who + " comes with a descriptor that is not of its process tree");
  }
  take(*memory, std::move(memfd));
  return {};
}

}  // namespace cowshed::process_tree
