#include <cerrno>
#include <functional>
#include <new>
#include <sys/mman.h>
#include <unistd.h>

#include <cowshed/cow/measurement.h>
#include <cowshed/cow/meter/page_snapshot.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {
namespace {

class MappedMemory : public std::pmr::memory_resource {
  static std::size_t whole_pages(std::size_t bytes) {
    return (bytes + kPageSize - 1) / kPageSize * kPageSize;
  }
  void* do_allocate(std::size_t bytes, std::size_t /*alignment*/) override {
    void* memory = ::mmap(nullptr, whole_pages(bytes), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    return memory;
  }
  void do_deallocate(void* memory, std::size_t bytes, std::size_t /*alignment*/) override {
    ::munmap(memory, whole_pages(bytes));
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

// Not a static variable of a function: another thread may hold its lock during a fork.
constinit MappedMemory mapped_memory;

}  // namespace

PageSnapshot::PageSnapshot() : maps_(&mapped_memory), runs_(&mapped_memory) {}

int PageSnapshot::read_maps(int maps) {
  constexpr std::size_t kChunk = 65536;
  if (::lseek(maps, 0, SEEK_SET) != 0) return errno;
  maps_.clear();
  for (;;) {
    const std::size_t size = maps_.size();
    maps_.resize(size + kChunk);
    const ssize_t got = ::read(maps, maps_.data() + size, kChunk);
    const int error = errno;
    maps_.resize(size + (got > 0 ? static_cast<std::size_t>(got) : 0));
    if (got < 0 && error == EINTR) continue;
    if (got < 0) return error;
    if (got == 0) return maps_.empty() ? ESRCH : 0;
  }
}

int PageSnapshot::take(int maps, int pagemap) {
  runs_.clear();
  if (const int error = read_maps(maps)) return error;
  auto add = [this](std::uint64_t begin, std::uint64_t end, internal::AnonymousPage kind) {
    runs_.push_back({begin, end, kind});
  };
  Mapping line;
  std::uint64_t lowest = 0;
  for (std::string_view rest = this->maps(); !rest.empty();) {
    parse_mapping(rest.substr(0, rest.find('\n')), line);
    rest.remove_prefix(std::min(rest.find('\n'), rest.size() - 1) + 1);
    if (lowest == 0) lowest = line.begin;
    if (!line.can_be_copied()) continue;
    // By reference, because std::function would allocate memory for a copy.
    const int error = internal::visit_anonymous_pages(pagemap, line.begin, line.end, std::ref(add));
    if (error != 0) return error;
  }
  // A scan of memory that is gone finds nothing and reports no error.
  std::uint64_t entry = 0;
  const auto offset = static_cast<off_t>(lowest / kPageSize * sizeof entry);
  return ::pread(pagemap, &entry, sizeof entry, offset) == sizeof entry ? 0 : ESRCH;
}

PageRanges PageSnapshot::pages(internal::AnonymousPage kind) const {
  PageRanges result;
  for (const Run& run : runs_)
    if (run.kind == kind) result.append({run.begin, run.end});
  return result;
}

PageRanges PageSnapshot::pages() const {
  PageRanges result;
  for (const Run& run : runs_) result.append({run.begin, run.end});
  return result;
}

}  // namespace cowshed::cow
