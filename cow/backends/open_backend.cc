#include <algorithm>
#include <bit>
#include <filesystem>
#include <system_error>
#include <unistd.h>

#include <cowshed/cow/backends/pagemap_backend.h>
#include <cowshed/cow/backends/tracepoint_backend.h>
#include <cowshed/cow/open_backend.h>

namespace cowshed::cow {
namespace {

// Sizes the buffer for 50 ms of copies at full speed on all CPUs, because cowtop may wait that long
// for a CPU.  The buffer takes at most a 64th of the memory.
SamplingOptions with_buffer_for_here(SamplingOptions sampling) {
  if (sampling.period == 0 || sampling.buffer_bytes != SamplingOptions{}.buffer_bytes)
    return sampling;
  constexpr std::uint64_t kMostBytes = 128 << 20;
  constexpr std::uint64_t kCopiesOfACpu = 15'000;
  constexpr std::uint64_t kMemoryShare = 64;
  const auto cpus = static_cast<std::uint64_t>(std::max(::sysconf(_SC_NPROCESSORS_ONLN), 1L));
  const auto memory = static_cast<std::uint64_t>(std::max(::sysconf(_SC_PHYS_PAGES), 1L)) *
                      static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t wanted = cpus * kCopiesOfACpu / sampling.period * sampling.stack_bytes;
  const std::uint64_t most = std::min(kMostBytes, std::bit_floor(memory / kMemoryShare));
  const auto bytes = static_cast<std::uint32_t>(std::min(std::bit_ceil(wanted), most));
  sampling.buffer_bytes = std::max(sampling.buffer_bytes, bytes);
  return sampling;
}

Expected<std::unique_ptr<Backend>> open_tracepoint(const SamplingOptions& sampling) {
  const SamplingOptions sized = with_buffer_for_here(sampling);
  auto opened = TracepointBackend::open(sized);
  // The larger buffer may exceed the limit of a memory cgroup.
  if (!opened && sized.buffer_bytes != sampling.buffer_bytes)
    return TracepointBackend::open(sampling);
  return opened;
}

bool proc_is_ours() {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self", error);
  return self == std::to_string(::getpid());
}

}  // namespace

Measurement Backend::begun_measurement() const {
  Measurement result;
  result.backend = name();
  result.exact = exact();
  result.taken_ns = monotonic_ns();
  result.duration_s = static_cast<double>(result.taken_ns - started_ns_) / 1e9;
  return result;
}

Expected<OpenedBackend> open_backend(BackendChoice choice, const SamplingOptions& sampling) {
  if (::access("/proc/self/stat", F_OK) != 0)
    return make_error(ErrorCode::unsupported, "/proc is not mounted: mount -t proc proc /proc");
  if (!proc_is_ours()) {
    return make_error(ErrorCode::unsupported,
                      "/proc is another PID namespace's, where our processes have other numbers: "
                      "mount this one's (mount -t proc proc /proc, or unshare --mount-proc)");
  }
  OpenedBackend opened;
  if (choice != BackendChoice::pagemap) {
    auto tracepoint = open_tracepoint(sampling);
    if (tracepoint) {
      opened.backend = std::move(*tracepoint);
      return opened;
    }
    if (choice == BackendChoice::tracepoint) return tl::make_unexpected(tracepoint.error());
    opened.notice = tracepoint.error().message +
                    "; using the pagemap backend instead, which is sampled: it counts pages that "
                    "are no longer shared, whoever copied them, and misses processes that live for "
                    "less than a sample";
    if (sampling.period != 0) opened.notice += "; code sites are not known";
    opened.notice += " (cowtop doctor says how to allow more)";
  }
  opened.backend = std::make_unique<PagemapBackend>();
  return opened;
}

}  // namespace cowshed::cow
