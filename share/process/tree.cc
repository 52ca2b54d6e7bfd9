#include <cerrno>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cowshed/base/try.h>
#include <cowshed/share/os/fork_state.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/share/os/random.h>
#include <cowshed/share/process/fork_handlers.h>
#include <cowshed/share/process/published_layout.h>
#include <cowshed/share/process/tree.h>

namespace cowshed::process_tree {
namespace {

constexpr int kSeals = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;

COWSHED_FORK_STATE std::mutex process_mutex;
std::atomic<Shared*> own = nullptr;  // never unmapped
std::atomic<int> own_memfd = -1;
std::atomic<std::uint64_t> own_id = 0;
std::atomic<std::uint32_t> last_known = 0;  // generation

// More numbers than other processes take before they see that a damaged word was written anew.
constexpr std::uint32_t kFar = 1U << 24U;

Expected<Shared*> map(int memfd) {
  void* memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd, 0);
  if (memory == MAP_FAILED) return system_error("mmap of what a process tree shares", errno);
  return static_cast<Shared*>(memory);
}

// An inode number cannot be changed by a write to the memory.
std::uint32_t inode_of(const struct stat& status) {
  return static_cast<std::uint32_t>(status.st_ino);
}

bool is_of_tree(int fd, std::uint64_t id) {
  struct stat status{};
  return fd >= 0 && fstat(fd, &status) == 0 && inode_of(status) == static_cast<std::uint32_t>(id);
}

void take(Shared* memory, FileDescriptor memfd, std::uint64_t id) {
  FileDescriptor before(own_memfd.exchange(memfd.release()));
  // If the program closed it, another file may have its number.
  if (!is_of_tree(before.get(), own_id.exchange(id))) (void)before.release();
  own.store(memory, std::memory_order_release);
}

// The mixer of splitmix64 (Vigna, 2015).
std::uint32_t check_of(std::uint32_t unit, std::uint32_t value) {
  std::uint64_t mixed = own_id.load() ^ (std::uint64_t{unit} << 32U | value);
  mixed = (mixed ^ mixed >> 30U) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ mixed >> 27U) * 0x94d049bb133111eb;
  return static_cast<std::uint32_t>(mixed >> 32U);
}

}  // namespace

std::mutex& mutex() {
  return fork_handlers::held_over_forks<fork_handlers::Rank::process, process_mutex>();
}

Expected<void> start() {
  const std::lock_guard lock(mutex());
  layout::create();
  if (own.load() != nullptr) return {};
  constexpr char kName[] = "cowshed-tree";
  FileDescriptor memfd = internal::make_memfd(kName, internal::Sealable::yes);
  if (!memfd) return system_error("memfd_create of what a process tree shares", errno);
  TRY_VOID(internal::set_file_size(memfd.get(), sizeof(Shared), kName));
  if (fcntl(memfd.get(), F_ADD_SEALS, kSeals) != 0)
    return system_error("fcntl(F_ADD_SEALS) of what a process tree shares", errno);
  struct stat status{};
  if (fstat(memfd.get(), &status) != 0)
    return system_error("fstat of what a process tree shares", errno);
  TRY(auto* memory, map(memfd.get()));
  std::uint64_t id = 0;
  while (id == 0) {
    TRY(const std::uint32_t drawn, internal::random_number("what a process tree shares"));
    id = std::uint64_t{drawn} << 32U | inode_of(status);
  }
  own_id = id;
  memory->last_generation = word_of(kGeneration, 0);  // the rest stays zero and takes no memory
  take(memory, std::move(memfd), id);
  return {};
}

std::uint64_t id() { return own_id.load(); }

Shared& shared() { return *own.load(std::memory_order_acquire); }

int descriptor() {
  const int memfd = own_memfd.load();
  return is_of_tree(memfd, id()) ? memfd : -1;
}

std::uint64_t word_of(std::uint32_t unit, std::uint32_t value) {
  return std::uint64_t{check_of(unit, value)} << 32U | value;
}

std::optional<std::uint32_t> value_of(std::uint32_t unit, std::uint64_t word) {
  const auto value = static_cast<std::uint32_t>(word);
  return word == word_of(unit, value) ? std::optional(value) : std::nullopt;
}

std::uint32_t take_generation() {
  std::atomic<std::uint64_t>& last = shared().last_generation;
  std::uint64_t before = last.load();
  std::uint32_t taken = 0;
  do {
    const auto known = value_of(kGeneration, before);
    taken = known ? *known + 1 : last_known.load() + kFar;
  } while (!last.compare_exchange_weak(before, word_of(kGeneration, taken)));
  last_known = taken;
  return taken;
}

void know_generation(std::uint32_t generation) {
  std::uint32_t known = last_known.load();
  while (known < generation && !last_known.compare_exchange_weak(known, generation)) {
  }
}

std::uint32_t last_generation() {
  if (const auto known = value_of(kGeneration, shared().last_generation.load()))
    know_generation(*known);
  return last_known.load();
}

Expected<void> join(FileDescriptor memfd, std::uint64_t id, const std::string& who) {
  struct stat status{};
  const bool is_one = internal::has_seals(memfd.get(), kSeals) &&
                      fstat(memfd.get(), &status) == 0 && status.st_size == sizeof(Shared) &&
                      is_of_tree(memfd.get(), id);
  if (!is_one) {
    return make_error(ErrorCode::foreign_descriptor,
                      who + " comes with a descriptor that is not of its process tree");
  }
  TRY(auto* memory, map(memfd.get()));
  last_known = 0;
  take(memory, std::move(memfd), id);
  return {};
}

}  // namespace cowshed::process_tree
