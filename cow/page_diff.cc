#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <optional>
#include <unistd.h>
#include <utility>

#include <cowshed/cow/clock.h>
#include <cowshed/cow/page_diff.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kWord = 8;
constexpr std::size_t kBatch = 64;  // pages of which the pagemaps are read at once

// A process's memory and pagemap, to be read.
class Memory {
 public:
  static Expected<Memory> open(const ProcFiles& proc, pid_t pid) {
    Memory memory;
    for (const auto& [name, fd] : {std::pair{"mem", &memory.mem_}, {"pagemap", &memory.pagemap_}}) {
      const std::string path = proc.path(pid, name);
      *fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
      if (*fd < 0) return process_error(pid, path, errno);
    }
    return memory;
  }
  Memory(Memory&& other) noexcept
      : mem_(std::exchange(other.mem_, -1)), pagemap_(std::exchange(other.pagemap_, -1)) {}
  Memory& operator=(Memory&&) = delete;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    if (mem_ >= 0) ::close(mem_);
    if (pagemap_ >= 0) ::close(pagemap_);
  }

  // False for pages that cannot be read, or not any more.
  bool read(std::uint64_t address, std::span<std::byte> to) const {
    return ::pread(mem_, to.data(), to.size(), static_cast<off_t>(address)) ==
           static_cast<ssize_t>(to.size());
  }
  // Entries of pagemap; 0, as of an absent page, where there are none.
  void entries(std::uint64_t address, std::span<std::uint64_t> to) const {
    std::fill(to.begin(), to.end(), 0);
    const auto offset = static_cast<off_t>(address / kPageSize * sizeof(std::uint64_t));
    // What a short read leaves is absent.
    if (::pread(pagemap_, to.data(), to.size_bytes(), offset) < 0) return;
  }

 private:
  Memory() = default;
  int mem_ = -1;
  int pagemap_ = -1;
};

constexpr std::uint64_t kPresent = std::uint64_t{1} << 63;
constexpr std::uint64_t kOfFile = std::uint64_t{1} << 61;
constexpr std::uint64_t kExclusive = std::uint64_t{1} << 56;

bool is_alone(std::uint64_t entry) { return (entry & kOfFile) == 0 && (entry & kExclusive) != 0; }

using Entries = std::array<std::uint64_t, kBatch>;

// The process to compare a page with; nullopt: nobody has it.
std::optional<std::size_t> original_of(const std::vector<Entries>& entries, std::size_t page) {
  std::optional<std::size_t> alone;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const std::uint64_t entry = entries[i].at(page);
    if ((entry & kPresent) == 0) continue;
    if (!is_alone(entry)) return i;
    if (!alone) alone = i;
  }
  return alone;
}

// The most frequent.
template <class Figures>
typename Figures::const_iterator top(const Figures& figures) {
  return std::max_element(figures.begin(), figures.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; });
}

class Differ {
 public:
  Differ(const Memory& own, const std::vector<Memory>& others)
      : own_(&own), others_(&others), entries_(others.size()) {}

  // At most kBatch pages.
  void compare(PageRange range) {
    const std::size_t pages = (range.end - range.begin) / kPageSize;
    Entries own_entries{};
    own_->entries(range.begin, std::span(own_entries).first(pages));
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      (*others_)[i].entries(range.begin, std::span(entries_[i]).first(pages));
    }
    for (std::size_t page = 0; page < pages; ++page) {
      const bool is_there = (own_entries.at(page) & kPresent) != 0;
      const auto original = is_there ? original_of(entries_, page) : std::nullopt;
      const std::uint64_t address = range.begin + page * kPageSize;
      if (!original || !own_->read(address, copy_) ||
          !(*others_)[*original].read(address, original_)) {
        ++not_compared_;
        continue;
      }
      if (is_alone(entries_[*original].at(page))) ++alone_;
      comparison_.add(copy_, original_);
    }
  }

  CopyDiff result() const {
    CopyDiff diff = comparison_.result();
    diff.not_compared_pages = not_compared_;
    diff.alone_pages = alone_;
    return diff;
  }

 private:
  const Memory* own_;
  const std::vector<Memory>* others_;
  std::vector<Entries> entries_;  // of each of the others
  std::array<std::byte, kPageSize> copy_{};
  std::array<std::byte, kPageSize> original_{};
  PageComparison comparison_;
  std::uint64_t not_compared_ = 0;
  std::uint64_t alone_ = 0;
};

}  // namespace

void PageComparison::add(PageBytes copy, PageBytes original) {
  ++sum_.compared_pages;
  if (std::memcmp(copy.data(), original.data(), kPageSize) == 0) {
    ++sum_.unchanged_pages;
    return;
  }
  std::optional<std::size_t> previous;  // where the last change begins
  std::size_t width = 0;                // of the change that goes on
  const auto end_change = [&](std::size_t end) {
    if (width == 0) return;
    const std::size_t begin = end - width;
    ++sum_.changes;
    ++widths_[width];
    if (previous) ++strides_[begin - *previous];
    previous = begin;
    width = 0;
  };
  for (std::size_t word = 0; word < kPageSize; word += kWord) {
    std::size_t bytes = 0;
    for (std::size_t i = word; i < word + kWord; ++i) bytes += copy[i] != original[i] ? 1 : 0;
    sum_.changed_bytes += bytes;
    if (bytes > 0) {
      width += kWord;
    } else {
      end_change(word);
    }
  }
  end_change(kPageSize);
}

CopyDiff PageComparison::result() const {
  CopyDiff diff = sum_;
  if (const auto width = top(widths_); width != widths_.end()) {
    diff.width_bytes = width->first;
    diff.changes_of_width = width->second;
  }
  if (const auto stride = top(strides_); stride != strides_.end()) {
    diff.stride_bytes = stride->first;
    diff.changes_at_stride = stride->second;
  }
  return diff;
}

Expected<CopyDiff> diff_copied_pages(const ProcFiles& proc, pid_t pid, const PageRanges& copied,
                                     const std::vector<pid_t>& others) {
  const std::uint64_t begin_ns = monotonic_ns();
  const auto own = Memory::open(proc, pid);
  if (!own) return tl::make_unexpected(own.error());
  std::vector<Memory> memories;
  for (const pid_t other : others) {
    if (auto memory = Memory::open(proc, other)) memories.push_back(std::move(*memory));
  }
  Differ differ(*own, memories);
  for (const PageRange& range : copied.ranges()) {
    for (std::uint64_t at = range.begin; at < range.end; at += kBatch * kPageSize) {
      differ.compare({at, std::min(range.end, at + kBatch * kPageSize)});
    }
  }
  CopyDiff diff = differ.result();
  diff.cost_ns = monotonic_ns() - begin_ns;
  return diff;
}

}  // namespace cowshed::cow
