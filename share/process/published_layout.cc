#include <algorithm>
#include <atomic>
#include <cstddef>
#include <sys/mman.h>

#include <cowshed/share/os/huge_pages.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/share/process/published_layout.h>

namespace cowshed::layout {
namespace {

// Each table begins at a page.  Unused pages take no memory, and fork() copies no page table of
// them.
struct Image {
  Header header;
  alignas(arch::kLargestPage) std::array<Arena, COWSHED_MAX_ARENAS> arenas;
  alignas(arch::kLargestPage) std::array<Object, COWSHED_MAX_OBJECTS> objects;
  TransferTables transfers;
};

Image* image = nullptr;
TransferTables unpublished_transfers;
std::atomic<std::uint64_t> change_count = 0;
std::uint32_t first_vacant = 0;  // all objects before this one are in use

[[gnu::constructor(101)]] void keep_transfers_small() {
  internal::keep_in_small_pages(&unpublished_transfers, sizeof unpublished_transfers);
}

// While it exists, readers wait.
class Change {
 public:
  Change() {
    sequence().fetch_add(1, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);  // the odd number before what follows
  }
  ~Change() { sequence().fetch_add(1, std::memory_order_release); }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

 private:
  static std::atomic_ref<std::uint32_t> sequence() {
    return std::atomic_ref(image->header.sequence);
  }
};

template <class Entry, std::size_t size>
void put(Table& table, std::array<Entry, size>& entries, std::uint32_t index, const Entry& entry) {
  const Change change;
  entries.at(index) = entry;
  table.count = std::max(table.count, index + 1);
}

// Private, so that a child's changes stay its own, without a lock between processes.
void* map_at(std::uint64_t place, int memfd) {
  return mmap(reinterpret_cast<void*>(place), sizeof(Image), PROT_READ | PROT_WRITE,
              MAP_PRIVATE | MAP_NORESERVE, memfd, 0);
}

void* map_at_first_free_place(int memfd) {
  for (const std::uint64_t place : cowshed_layout_places) {
    void* const memory = map_at(place, memfd);
    if (memory == MAP_FAILED || memory == reinterpret_cast<void*>(place)) return memory;
    munmap(memory, sizeof(Image));
  }
  return map_at(0, memfd);
}

}  // namespace

void create() {
  if (image != nullptr) return;
  const FileDescriptor memfd = internal::make_memfd(COWSHED_LAYOUT_MEMFD, internal::Sealable::no);
  void* memory = MAP_FAILED;
  if (memfd && internal::set_file_size(memfd.get(), sizeof(Image), COWSHED_LAYOUT_MEMFD))
    memory = map_at_first_free_place(memfd.get());
  if (memory == MAP_FAILED) return;
  image = static_cast<Image*>(memory);
  const Change change;
  Header& header = image->header;
  header.magic = COWSHED_LAYOUT_MAGIC;
  header.major = COWSHED_LAYOUT_MAJOR;
  header.minor = COWSHED_LAYOUT_MINOR;
  header.bytes = sizeof(Image);
  header.arenas = {offsetof(Image, arenas), sizeof(Arena), 0};
  header.objects = {offsetof(Image, objects), sizeof(Object), 0};
  constexpr std::uint64_t kTransfers = offsetof(Image, transfers);
  header.transfers = {kTransfers + offsetof(TransferTables, transfers), sizeof(Transfer), 0};
  header.transfer_lanes = {kTransfers + offsetof(TransferTables, lanes), sizeof(TransferLane), 0};
}

TransferTables& transfer_tables() {
  return image == nullptr ? unpublished_transfers : image->transfers;
}

void show_count(Table Header::* table, std::uint32_t count) {
  if (image != nullptr)
    std::atomic_ref((image->header.*table).count).store(count, std::memory_order_release);
}

void add_settled_bytes(std::int64_t bytes) {
  if (image == nullptr) return;
  const Change change;
  auto& sum = image->header.settled_bytes;
  sum = bytes < 0 ? sum - std::min<std::uint64_t>(sum, static_cast<std::uint64_t>(-bytes))
                  : sum + static_cast<std::uint64_t>(bytes);
}

std::uint64_t changes() noexcept { return change_count.load(std::memory_order_acquire); }

void put_arena(std::uint32_t index, const Arena& arena) {
  ++change_count;
  if (image != nullptr) put(image->header.arenas, image->arenas, index, arena);
}

void clear_arena(std::uint32_t index) {
  ++change_count;
  if (image != nullptr && image->arenas.at(index).begin != 0) {
    const Change change;
    image->arenas[index] = {};
  }
}

std::uint32_t put_object(const Object& object) {
  ++change_count;
  if (image == nullptr) return 0;
  while (first_vacant < image->header.objects.count && image->objects.at(first_vacant).address != 0)
    ++first_vacant;
  put(image->header.objects, image->objects, first_vacant, object);
  return first_vacant++;
}

void clear_object(std::uint32_t index) {
  ++change_count;
  if (image != nullptr && image->objects.at(index).address != 0) {
    const Change change;
    image->objects[index] = {};
    first_vacant = std::min(first_vacant, index);
  }
}

const Object* object_at(std::uint64_t address) noexcept {
  for (std::uint32_t i = 0; image != nullptr && i < image->header.objects.count; ++i) {
    const Object& object = image->objects[i];
    if (object.name[0] != '\0' && address - object.address < object.bytes) return &object;
  }
  return nullptr;
}

const Object* only_object_in(std::uint64_t begin, std::uint64_t end) noexcept {
  const Object* only = nullptr;
  for (std::uint32_t i = 0; image != nullptr && i < image->header.objects.count; ++i) {
    const Object& object = image->objects[i];
    if (object.name[0] == '\0' || object.address - begin >= end - begin) continue;
    if (only != nullptr) return nullptr;
    only = &object;
  }
  return only;
}

}  // namespace cowshed::layout
