#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <iterator>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cowshed/base/file_descriptor.h>
#include <cowshed/base/memory_limits.h>
#include <cowshed/base/pagemap.h>
#include <cowshed/base/try.h>
#include <cowshed/share/arena/generation.h>
#include <cowshed/share/os/mapped_memory.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/share/os/sync.h>

namespace cowshed::internal {
namespace {

// Each run is two mappings more, which every fork copies.
constexpr std::size_t kMostRuns = 64;

std::size_t memory_of(int fd) {
  struct stat status{};
  return fstat(fd, &status) == 0 ? static_cast<std::size_t>(status.st_blocks) * 512 : 0;
}

int protection_of(FreezeMode mode) {
  return mode == FreezeMode::strict ? PROT_READ : PROT_READ | PROT_WRITE;
}

// Replaces a mapping in one step: the kernel holds its lock, so other threads can read meanwhile.
// Calls the kernel itself, because ThreadSanitizer takes mmap() for a write to that memory.
bool replace(std::uintptr_t begin, std::size_t size, int protection, int flags, int fd,
             std::size_t offset) {
  return syscall(SYS_mmap, begin, size, protection, flags | MAP_NORESERVE | MAP_FIXED, fd,
                 static_cast<long>(offset)) != -1;
}

// Copies one run.  Returns 0, or the errno of the call that failed.
int copy_step(const ArenaMapping& mapping, const Run& run, bool huge_pages, std::vector<Run>& small,
              int& refusal) {
  const std::size_t size = run.end - run.begin;
  if (!mapping.file.is_ours()) return errno;
  const MappedMemory copies(map_shared(mapping.file.fd, run.begin, size), {size});
  if (copies == nullptr) return errno;
  std::vector<Run> left = {{0, size}};
  if (huge_pages) {
    for (std::size_t offset = run.begin; offset < run.end; offset += kHugePage)
      if (!allocate_pages(mapping.file.fd, offset, 1)) return errno;
    left = collapse_runs(reinterpret_cast<std::uintptr_t>(copies.get()), left, nullptr, refusal);
  }
  for (const Run& part : left) {
    const Run copy = {run.begin + part.begin, run.begin + part.end};
    if (!allocate_pages(mapping.file.fd, copy.begin, copy.end - copy.begin)) return errno;
    append(small, copy);
  }
  std::memcpy(copies.get(), reinterpret_cast<const void*>(mapping.begin + run.begin), size);
  return 0;
}

Expected<void> visit_private(std::uintptr_t begin, std::size_t size, const std::string& who,
                             const std::function<void(std::uint64_t, std::uint64_t)>& visit) {
  const FileDescriptor pagemap(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  if (!pagemap) return system_error(who + ": /proc/self/pagemap cannot be opened", errno);
  const int error =
      visit_anonymous_ranges(pagemap.get(), begin, begin + size, Anonymous::of_private_file, visit);
  if (error != 0) return system_error(who + ": /proc/self/pagemap cannot be read", error);
  return {};
}

}  // namespace

void SegmentMap::assign(const Run& run, const HeldFile& file) {
  if (run.begin == run.end) return;
  std::vector<Segment> result;
  const auto keep = [&](Segment segment, std::size_t begin, std::size_t end) {
    if (begin < end) {
      segment.run = {begin, end};
      result.push_back(segment);
    }
  };
  for (const Segment& segment : segments_) {
    keep(segment, segment.run.begin, std::min(segment.run.end, run.begin));
    keep(segment, std::max(segment.run.begin, run.end), segment.run.end);
  }
  result.push_back({run, file});
  std::sort(result.begin(), result.end(),
            [](const auto& a, const auto& b) { return a.run.begin < b.run.begin; });
  segments_ = std::move(result);
}

std::vector<HeldFile> SegmentMap::files() const {
  std::vector<HeldFile> result;
  for (const Segment& segment : segments_)
    if (std::ranges::find(result, segment.file.fd, &HeldFile::fd) == result.end())
      result.push_back(segment.file);
  return result;
}

void SegmentMap::close_files() noexcept {
  for (auto segment = segments_.begin(); segment != segments_.end(); ++segment) {
    const bool is_last =
        std::none_of(std::next(segment), segments_.end(),
                     [&](const Segment& other) { return other.file.fd == segment->file.fd; });
    if (is_last) segment->file.close();
  }
  segments_.clear();
}

std::vector<Run> SegmentMap::runs_of(int fd) const {
  std::vector<Run> result;
  for (const Segment& segment : segments_)
    if (segment.file.fd == fd) result.push_back(segment.run);
  return result;
}

std::size_t SegmentMap::bytes_on_disk(const std::vector<Run>& holes) const {
  std::size_t bytes = 0;
  for (const Segment& segment : segments_)
    bytes += segment.payload == 0 ? 0 : size_of(without({segment.run}, holes));
  return bytes;
}

std::vector<Run> SegmentMap::worth_copying(std::vector<Run> changed, std::size_t added,
                                           const std::vector<Run>& holes) const {
  struct File {
    int fd;
    std::vector<Run> runs;
    std::size_t bytes;
  };
  std::vector<File> current;
  for (const auto& file : files()) {
    auto runs = without(runs_of(file.fd), changed);
    const std::size_t bytes = size_of(without(runs, holes));
    current.push_back({file.fd, std::move(runs), bytes});
  }
  std::sort(current.begin(), current.end(),
            [](const File& a, const File& b) { return a.bytes < b.bytes; });
  std::size_t size = added + size_of(without(changed, holes));
  for (const auto& [fd, runs, bytes] : current) {
    if (bytes <= 2 * size || 2 * bytes < memory_of(fd)) {
      changed.insert(changed.end(), runs.begin(), runs.end());
      size += bytes;
    }
  }
  return joined(std::move(changed));
}

Expected<ArenaMapping> map_generation(const std::string& name, std::uintptr_t begin,
                                      std::size_t size, std::size_t first) {
  TRY(FileDescriptor fd, open_memfd(name, size));
  const ArenaMapping mapping = {HeldFile::of(fd.release()), begin, size};
  if (first == size) return mapping;
  const bool mapped = replace(begin + first, size - first, PROT_READ | PROT_WRITE, MAP_SHARED,
                              mapping.file.fd, first);
  if (mapped && madvise(reinterpret_cast<void*>(begin + first), size - first, MADV_DONTFORK) == 0)
    return mapping;
  const std::string call = mapped ? "madvise(MADV_DONTFORK)" : "mmap";
  auto error = system_error("arena '" + name + "': " + call + " for a new generation", errno);
  unmap_generation(mapping, first);
  return error;
}

void unmap_generation(const ArenaMapping& mapping, std::size_t first) {
  if (first < mapping.size) {
    replace(mapping.begin + first, mapping.size - first, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
            0);
  }
  mapping.file.close();
}

Expected<void> populate(std::uintptr_t begin, std::size_t size, const std::string& who) {
  if (madvise(reinterpret_cast<void*>(begin), size, MADV_POPULATE_READ) == 0) return {};
  const int error = errno;
  const std::string hint = error == EFAULT ? " (is the file system of its image full?)" : "";
  return system_error(who + ": its pages cannot be read" + hint + ": madvise(2)", error);
}

Expected<void> copy_runs(const ArenaMapping& mapping, const std::vector<Run>& runs, bool huge_pages,
                         const std::string& who, const Progress& progress, std::vector<Run>& small,
                         int& error) {
  if (runs.empty()) return {};
  const std::size_t total = size_of(runs);
  if (MemoryLimits::of_this_process().headroom() < total) {
    return make_error(ErrorCode::out_of_memory, who + ": the memory cgroup has no room for the " +
                                                    std::to_string(total) +
                                                    " bytes that were written to; raise its limit");
  }
  std::size_t done = 0;
  for (const Run& run : runs) {
    for (std::size_t offset = run.begin; offset < run.end; offset += kCollapseStep) {
      const Run step = {offset, std::min(offset + kCollapseStep, run.end)};
      TRY_VOID(populate(mapping.begin + step.begin, step.end - step.begin, who));
      if (const int failed = copy_step(mapping, step, huge_pages, small, error))
        return system_error(who + ": copying what was written to", failed);
      done += step.end - step.begin;
      if (progress) progress(done, total);
    }
  }
  return {};
}

void discard_copies(const ArenaMapping& mapping, std::size_t first) {
  if (first > 0 && mapping.file.is_ours())
    fallocate(mapping.file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
              static_cast<off_t>(first));
}

std::optional<SealFailure> seal_generation(const Generation& generation, FreezeMode mode) noexcept {
  const auto& [mapping, first, used] = generation;
  const int protection = protection_of(mode);
  bool cut = false;
  const auto undo = [&cut, begin = mapping.begin + first, size = mapping.size - first,
                     &file = mapping.file, offset = first, whole = mapping.size](const char* what) {
    const int error = errno;
    const bool is_restored =
        size == 0 || (file.is_ours() && (!cut || set_file_size(file.fd, whole, {})) &&
                      replace(begin, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd, offset) &&
                      madvise(reinterpret_cast<void*>(begin), size, MADV_DONTFORK) == 0);
    return SealFailure{error, what, is_restored};
  };
  // A callback of the caller's has run since the freeze began.
  if (!mapping.file.is_ours()) return SealFailure{errno, ": its descriptor was closed", true};
  if (used > first && !replace(mapping.begin + first, used - first, protection, MAP_PRIVATE,
                               mapping.file.fd, first)) {
    return undo(": mmap of it, private");
  }
  if (used < mapping.size && !replace(mapping.begin + used, mapping.size - used, PROT_NONE,
                                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    return undo(": mmap over the unused rest");
  }
  if (ftruncate(mapping.file.fd, static_cast<off_t>(used)) != 0)
    return undo(": ftruncate of the unused rest");
  cut = true;
  if (!seal(mapping.file.fd)) {
    return undo(errno == EBUSY
                    ? ": cannot be sealed while somebody else maps it for writing or has I/O on "
                      "it; end that, then freeze() again"
                    : ": fcntl(F_ADD_SEALS)");
  }
  return std::nullopt;
}

Expected<void> map_copies(const ArenaMapping& mapping, const std::vector<Run>& runs,
                          FreezeMode mode, const std::string& who) {
  for (const auto& [begin, end] : runs) {
    if (!mapping.file.is_ours() || !replace(mapping.begin + begin, end - begin, protection_of(mode),
                                            MAP_PRIVATE, mapping.file.fd, begin)) {
      return system_error(who +
                              " is frozen, but some of what was written to is still private; "
                              "refreeze() again: mapping it",
                          errno);
    }
  }
  return {};
}

Expected<std::vector<Run>> written_runs(std::uintptr_t begin, std::size_t size,
                                        const std::string& who) {
  std::vector<Run> runs;
  TRY_VOID(visit_private(begin, size, who, [&](std::uint64_t from, std::uint64_t to) {
    append(runs, {(from - begin) / kHugePage * kHugePage,
                  (to - begin + kHugePage - 1) / kHugePage * kHugePage});
  }));
  for (std::size_t gap = kHugePage; runs.size() > kMostRuns; gap *= 2) {
    std::vector<Run> fewer;
    for (const Run& run : runs) append(fewer, run, gap);
    runs = std::move(fewer);
  }
  return runs;
}

Expected<std::size_t> count_private_bytes(std::uintptr_t begin, std::size_t size,
                                          const std::string& who) {
  std::size_t bytes = 0;
  TRY_VOID(visit_private(begin, size, who,
                         [&](std::uint64_t from, std::uint64_t to) { bytes += to - from; }));
  return bytes;
}

}  // namespace cowshed::internal
