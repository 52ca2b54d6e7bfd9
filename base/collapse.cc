#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <optional>
#include <span>
#include <sstream>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/clock.h>
#include <cowshed/base/collapse.h>
#include <cowshed/base/memory_limits.h>
#include <cowshed/base/pagemap.h>
#include <cowshed/base/size_literals.h>
#include <cowshed/base/try.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25  // Linux 6.1
#endif

namespace cowshed::internal {

using arch::kHugePage;
using arch::kPage;

// A 2 MiB range, and its pages of private memory.
struct Collapser::Range {
  std::uint64_t begin = 0;
  std::uint64_t pages = 0;
  bool is_shared = false;
  bool is_swapped = false;
  bool is_huge = false;

  std::uint64_t end() const { return begin + kHugePage; }
  std::uint64_t bytes() const { return pages * kPage; }
  std::uint64_t holes() const { return kHugePage - bytes(); }
};

namespace {

constexpr std::uint64_t kReserve = 32_MiB;
constexpr std::uint64_t kKiB = 1024;

struct Mapping {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  bool is_private_memory = false;
  std::uint64_t anonymous = 0;
  std::uint64_t huge = 0;
  std::optional<SmallPages> obstacle;
};

bool is_header(const std::string& line, Mapping& mapping) {
  std::istringstream words(line);
  char dash = 0;
  std::string permissions, skipped;
  std::uint64_t inode = 0;
  words >> std::hex >> mapping.begin >> dash >> mapping.end >> permissions >> skipped >> skipped >>
      std::dec >> inode;
  mapping.is_private_memory =
      permissions.size() == 4 && permissions[1] == 'w' && permissions[3] == 'p' && inode == 0;
  return words && dash == '-';
}

// VmFlags of proc(5).
std::optional<SmallPages> obstacle_in(const std::string& flags) {
  std::optional<SmallPages> obstacle;
  std::istringstream words(flags);
  for (std::string flag; words >> flag;) {
    constexpr std::string_view kForbidden = "nh dc wf ht um uw ui mg io pf ss";
    if (flag == "lo") return SmallPages::locked;
    if (kForbidden.find(flag) != kForbidden.npos) obstacle = SmallPages::forbidden;
  }
  return obstacle;
}

std::vector<Mapping> private_mappings(const std::string& folder) {
  std::vector<Mapping> mappings;
  std::ifstream file(folder + "/smaps");
  Mapping mapping;
  for (std::string line; std::getline(file, line);) {
    if (Mapping next; is_header(line, next)) {
      mapping = next;
      continue;
    }
    const std::string key = line.substr(0, line.find(':'));
    const std::string rest = line.substr(std::min(key.size() + 1, line.size()));
    if (key == "Anonymous") mapping.anonymous = kKiB * std::strtoull(rest.c_str(), nullptr, 10);
    if (key == "AnonHugePages") mapping.huge = kKiB * std::strtoull(rest.c_str(), nullptr, 10);
    if (key != "VmFlags" || !mapping.is_private_memory || mapping.anonymous == 0) continue;
    mapping.obstacle = obstacle_in(rest);
    mappings.push_back(mapping);
  }
  return mappings;
}

// Returns the sum of a line such as "VmPTE:  12 kB"; 0: there is none.
std::uint64_t number_in(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);)
    if (line.starts_with(key)) return std::strtoull(line.c_str() + key.size(), nullptr, 10);
  return 0;
}

bool forbids_huge_pages(const std::string& folder) {
  std::ifstream file(folder + "/status");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("THP_enabled:")) return line.ends_with("0");
  return false;
}

std::string name_of(pid_t pid) { return pid == 0 ? "collapse" : "PID " + std::to_string(pid); }

Error refusal(pid_t pid, int error) {
  const std::string name = name_of(pid);
  switch (error) {
    case EPERM:
      return {ErrorCode::permission_denied, error,
              name + ": to collapse its memory takes root, or CAP_SYS_NICE"};
    case EACCES:
      return {ErrorCode::permission_denied, error,
              name +
                  ": to collapse its memory takes root, or CAP_SYS_NICE and the right to trace "
                  "it (CAP_SYS_PTRACE)"};
    case ESRCH:
      return {ErrorCode::no_such_process, error,
              name + ": there is no such process, or it has no memory (any more)"};
    case EINVAL:
    case ENOSYS:
      return {ErrorCode::unsupported, error,
              name + ": to collapse memory takes Linux 6.1 or later with transparent huge pages"};
    default: return system_error(name + ": process_madvise", error).value();
  }
}

void rest_for(std::uint64_t ns) {
  constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
  const timespec time{static_cast<time_t>(ns / kNsPerSecond), static_cast<long>(ns % kNsPerSecond)};
  ::clock_nanosleep(CLOCK_MONOTONIC, 0, &time, nullptr);
}

}  // namespace

std::string Collapser::folder() const {
  return "/proc/" + (pid_ == 0 ? "self" : std::to_string(pid_));
}

// Returns 0 or an errno.
int Collapser::advise(std::uint64_t begin, std::uint64_t bytes) const {
  auto* const memory = reinterpret_cast<void*>(begin);
  if (pid_ == 0) return ::madvise(memory, bytes, MADV_COLLAPSE) == 0 ? 0 : errno;
  const iovec part{memory, bytes};
  const std::size_t parts = bytes == 0 ? 0 : 1;
  return ::syscall(SYS_process_madvise, pidfd_.get(), &part, parts, MADV_COLLAPSE, 0) < 0 ? errno
                                                                                          : 0;
}

Expected<Collapser> Collapser::open(pid_t pid, const CollapseOptions& options) {
  if (const int page = getpagesize(); page != static_cast<int>(kPage)) {
    return make_error(ErrorCode::unsupported, name_of(pid) + ": this kernel has pages of " +
                                                  std::to_string(page) +
                                                  " bytes; to collapse memory takes 4096");
  }
  FileDescriptor pidfd;
  if (pid != 0) {
    pidfd = FileDescriptor(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!pidfd) return tl::make_unexpected(refusal(pid, errno));
  }
  Collapser collapser(pid, std::move(pidfd), options);
  // Of no memory, it says whether the kernel would.
  if (const int error = collapser.advise(0, 0)) return tl::make_unexpected(refusal(pid, error));
  if (forbids_huge_pages(collapser.folder())) {
    return make_error(ErrorCode::unsupported,
                      name_of(pid) +
                          ": the process has forbidden huge pages for itself "
                          "(PR_SET_THP_DISABLE; Redis: start it with --disable-thp no)");
  }
  return collapser;
}

class Collapser::Round {
 public:
  explicit Round(Collapser& collapser)
      : collapser_(collapser),
        folder_(collapser.folder()),
        limits_(MemoryLimits::of_process(folder_)) {}

  Expected<Collapsed> run(const Progress& progress) {
    const std::uint64_t begin = monotonic_ns();
    const std::uint64_t cpu = thread_cpu_ns();
    pagemap_ = FileDescriptor(::open((folder_ + "/pagemap").c_str(), O_RDONLY | O_CLOEXEC));
    if (!pagemap_) return tl::make_unexpected(refusal(collapser_.pid_, errno));
    measure(result_.huge_bytes_before, result_.page_tables_before);
    TRY(auto ranges, look_at_all());
    const auto chosen = choose(std::move(ranges));
    TRY_VOID(collapse(std::span(chosen), progress));
    measure(result_.huge_bytes_after, result_.page_tables_after);
    result_.time = std::chrono::nanoseconds(monotonic_ns() - begin);
    result_.cpu = std::chrono::nanoseconds(thread_cpu_ns() - cpu);
    return result_;
  }

 private:
  // A huge page keeps an empty page table, which is no work for fork().
  void measure(std::uint64_t& huge, std::uint64_t& page_tables) const {
    huge = kKiB * number_in(folder_ + "/smaps_rollup", "AnonHugePages:");
    const std::uint64_t kept = huge / kHugePage * kPage;
    page_tables = kKiB * number_in(folder_ + "/status", "VmPTE:");
    page_tables -= std::min(page_tables, kept);
  }

  Expected<std::vector<Range>> look(std::uint64_t begin, std::uint64_t end) const {
    std::vector<Range> ranges;
    int error = visit_anonymous_pages(
        pagemap_.get(), begin, end, [&](std::uint64_t from, std::uint64_t to, AnonymousPage kind) {
          while (from < to) {
            const std::uint64_t range = from / kHugePage * kHugePage;
            if (ranges.empty() || ranges.back().begin != range) ranges.push_back({range});
            const std::uint64_t stop = std::min(to, range + kHugePage);
            ranges.back().pages += (stop - from) / kPage;
            ranges.back().is_shared |= kind == AnonymousPage::shared;
            ranges.back().is_swapped |= kind == AnonymousPage::swapped;
            from = stop;
          }
        });
    if (error == 0) {
      error = visit_huge_ranges(pagemap_.get(), begin, end, [&](auto from, auto to) {
        for (Range& each : std::span(std::ranges::lower_bound(ranges, from, {}, &Range::begin),
                                     std::ranges::lower_bound(ranges, to, {}, &Range::begin)))
          each.is_huge = true;
      });
    }
    if (error != 0) return tl::make_unexpected(refusal(collapser_.pid_, error));
    return ranges;
  }

  static std::optional<SmallPages> obstacle(const Range& range) {
    if (range.is_shared) return SmallPages::shared;
    if (range.is_swapped) return SmallPages::swapped;
    return std::nullopt;
  }

  // Returns the ranges in small pages that nothing but their holes forbids to collapse.
  Expected<std::vector<Range>> look_at_all() {
    std::vector<Range> candidates;
    const auto filled = std::exchange(collapser_.filled_, {});
    for (const Mapping& mapping : private_mappings(folder_)) {
      result_.private_bytes += mapping.anonymous;
      if (mapping.obstacle) {
        result_.left_as(*mapping.obstacle) +=
            mapping.anonymous - std::min(mapping.anonymous, mapping.huge);
        continue;
      }
      TRY(const auto ranges, look(mapping.begin, mapping.end));
      for (const Range& range : ranges) {
        const auto known = filled.find(range.begin);
        // Holes that are there again were given back.
        if (known != filled.end() && known->second > range.holes())
          collapser_.filled_[range.begin] = known->second - range.holes();
        const bool is_whole = range.begin >= mapping.begin && range.end() <= mapping.end;
        const auto why_not = is_whole ? obstacle(range) : SmallPages::edge;
        if (range.is_huge) continue;
        if (why_not) result_.left_as(*why_not) += range.bytes();
        else candidates.push_back(range);
      }
    }
    return candidates;
  }

  std::vector<Range> choose(std::vector<Range> candidates) {
    auto may_add = static_cast<std::uint64_t>(collapser_.options_.most_added *
                                              static_cast<double>(result_.private_bytes));
    for (const auto& [range, holes] : collapser_.filled_) may_add -= std::min(may_add, holes);
    std::ranges::stable_sort(candidates, {}, &Range::holes);
    const auto end = std::ranges::find_if(candidates, [&](const Range& each) {
      if (each.holes() > may_add) return true;
      may_add -= each.holes();
      return false;
    });
    leave(std::span(end, candidates.end()), SmallPages::sparse);
    candidates.erase(end, candidates.end());
    std::ranges::sort(candidates, {}, &Range::begin);
    return candidates;
  }

  void leave(std::span<const Range> ranges, SmallPages reason) {
    for (const Range& each : ranges) result_.left_as(reason) += each.bytes();
  }

  // Range by range, so that page faults and forks of the process wait for one at most.
  Expected<void> collapse(std::span<const Range> left, const Progress& progress) {
    const std::size_t all = left.size();
    for (; !left.empty(); left = left.subspan(1)) {
      const bool goes_on = !progress || progress((all - left.size()) * kHugePage, all * kHugePage);
      const std::uint64_t free = std::min(limits_.headroom(), available_memory());
      is_out_of_memory_ = is_out_of_memory_ || free < kReserve + kHugePage;
      if (!goes_on || is_out_of_memory_) {
        leave(left, goes_on ? SmallPages::no_memory : SmallPages::stopped);
        return {};
      }
      const std::uint64_t cpu = thread_cpu_ns();
      TRY_VOID(collapse(left.front()));
      const double share = collapser_.options_.cpu_share;
      if (share < 1)
        rest_for(static_cast<std::uint64_t>((1 / share - 1) *
                                            static_cast<double>(thread_cpu_ns() - cpu)));
    }
    return {};
  }

  Expected<void> collapse(const Range& range) {
    // Of pages that are shared since, the kernel would make copies.
    TRY(const auto now, look(range.begin, range.end()));
    if (now.empty() || obstacle(now.front()) || now.front().pages < range.pages) {
      leave({&range, 1}, SmallPages::busy);
      return {};
    }
    // EAGAIN: a page is busy.  That passes soon, or lasts as long as I/O on the page.
    constexpr int kTries = 4;
    int error = EAGAIN;
    for (int i = 0; i < kTries && error == EAGAIN; ++i) error = timed_advise(range.begin);
    if (error == ESRCH || error == EPERM || error == EACCES)
      return tl::make_unexpected(refusal(collapser_.pid_, error));
    if (error == 0) {
      result_.added_bytes += range.holes();
      if (range.holes() > 0) collapser_.filled_[range.begin] += range.holes();
      return {};
    }
    // ENOMEM is also said of memory that is unmapped by now.
    TRY(const auto later, look(range.begin, range.end()));
    is_out_of_memory_ = (error == ENOMEM || error == EBUSY) && !later.empty();
    leave({&range, 1}, is_out_of_memory_ ? SmallPages::no_memory : SmallPages::busy);
    return {};
  }

  int timed_advise(std::uint64_t begin) {
    const std::uint64_t start = monotonic_ns();
    const int error = collapser_.advise(begin, kHugePage);
    result_.longest_call =
        std::max(result_.longest_call, std::chrono::nanoseconds(monotonic_ns() - start));
    return error;
  }

  Collapser& collapser_;
  std::string folder_;
  MemoryLimits limits_;
  FileDescriptor pagemap_;
  Collapsed result_;
  bool is_out_of_memory_ = false;
};

Expected<Collapsed> Collapser::collapse(const Progress& progress) {
  return Round(*this).run(progress);
}

}  // namespace cowshed::internal
