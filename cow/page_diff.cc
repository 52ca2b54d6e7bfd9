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
    auto entries = PageEntries::open(proc, pid);
    if (!entries) return tl::make_unexpected(entries.error());
    const std::string path = proc.path(pid, "mem");
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return process_error(pid, path, errno);
    return Memory(fd, std::move(*entries));
  }
  Memory(Memory&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), entries_(std::move(other.entries_)) {}
  Memory& operator=(Memory&&) = delete;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    if (fd_ >= 0) ::close(fd_);
  }

  // False for pages that cannot be read, or not any more.
  bool read(std::uint64_t address, std::span<std::byte> to) const {
    return ::pread(fd_, to.data(), to.size(), static_cast<off_t>(address)) ==
           static_cast<ssize_t>(to.size());
  }
  const PageEntries& entries() const { return entries_; }

 private:
  Memory(int fd, PageEntries entries) : fd_(fd), entries_(std::move(entries)) {}
  int fd_;
  PageEntries entries_;
};

using Batch = std::array<PageEntry, kBatch>;

// The process that has the original; nullopt: nobody.
std::optional<std::size_t> original_of(const std::vector<Batch>& entries, std::size_t page,
                                       std::uint64_t frame) {
  std::optional<std::size_t> alone;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const PageEntry entry = entries[i].at(page);
    if (!entry.is_present() || (frame != 0 && entry.frame() != frame)) continue;
    if (!entry.is_alone()) return i;
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

class Comparer {
 public:
  Comparer(const Memory& own, const std::vector<Memory>& others, const PageFrames& originals)
      : own_(&own), others_(&others), originals_(&originals), entries_(others.size()) {}

  // At most kBatch pages.
  void compare(PageRange range) {
    const std::size_t pages = (range.end - range.begin) / kPageSize;
    Batch own_entries{};
    own_->entries().read(range.begin, std::span(own_entries).first(pages));
    for (std::size_t i = 0; i < entries_.size(); ++i) {
      (*others_)[i].entries().read(range.begin, std::span(entries_[i]).first(pages));
    }
    for (std::size_t page = 0; page < pages; ++page) {
      const std::uint64_t address = range.begin + page * kPageSize;
      const auto original = own_entries.at(page).is_present()
                                ? original_of(entries_, page, originals_->frame(address))
                                : std::nullopt;
      if (!original || !own_->read(address, copy_) ||
          !(*others_)[*original].read(address, original_)) {
        comparison_.add_not_compared();
        continue;
      }
      comparison_.add(copy_, original_, entries_[*original].at(page).is_alone());
    }
  }

  PageComparison& comparison() { return comparison_; }

 private:
  const Memory* own_;
  const std::vector<Memory>* others_;
  const PageFrames* originals_;
  std::vector<Batch> entries_;  // of each of the others
  std::array<std::byte, kPageSize> copy_{};
  std::array<std::byte, kPageSize> original_{};
  PageComparison comparison_;
};

}  // namespace

void PageComparison::add(PageBytes copy, PageBytes original, bool is_alone) {
  ++sum_.compared_pages;
  if (is_alone) ++sum_.alone_pages;
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

void PageComparison::add(const PageComparison& other) {
  sum_.compared_pages += other.sum_.compared_pages;
  sum_.alone_pages += other.sum_.alone_pages;
  sum_.not_compared_pages += other.sum_.not_compared_pages;
  sum_.unchanged_pages += other.sum_.unchanged_pages;
  sum_.changed_bytes += other.sum_.changed_bytes;
  sum_.changes += other.sum_.changes;
  sum_.cost_ns += other.sum_.cost_ns;
  for (const auto& [width, count] : other.widths_) widths_[width] += count;
  for (const auto& [stride, count] : other.strides_) strides_[stride] += count;
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

Expected<PageComparison> compare_copied_pages(const ProcFiles& proc, pid_t pid,
                                              const PageRanges& copied,
                                              const std::vector<pid_t>& others,
                                              const PageFrames& originals) {
  const std::uint64_t begin_ns = monotonic_ns();
  const auto own = Memory::open(proc, pid);
  if (!own) return tl::make_unexpected(own.error());
  std::vector<Memory> memories;
  memories.reserve(others.size());
  for (const pid_t other : others) {
    if (auto memory = Memory::open(proc, other)) memories.push_back(std::move(*memory));
  }
  Comparer comparer(*own, memories, originals);
  for (const PageRange& range : copied.ranges()) {
    for (std::uint64_t at = range.begin; at < range.end; at += kBatch * kPageSize) {
      comparer.compare({at, std::min(range.end, at + kBatch * kPageSize)});
    }
  }
  comparer.comparison().add_cost(monotonic_ns() - begin_ns);
  return std::move(comparer.comparison());
}

}  // namespace cowshed::cow
