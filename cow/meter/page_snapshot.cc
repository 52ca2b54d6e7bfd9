#include <cerrno>
#include <functional>
#include <sys/mman.h>
#include <unistd.h>

#include <cowshed/base/mapped_resource.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/meter/page_snapshot.h>
#include <cowshed/cow/proc/proc_files.h>

namespace cowshed::cow {
namespace {

// Not a static variable of a function: another thread may hold its lock during a fork.
constinit internal::MappedResource mapped_memory(MAP_POPULATE);

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
