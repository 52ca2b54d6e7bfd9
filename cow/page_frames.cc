#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <unistd.h>
#include <utility>

#include <cowshed/cow/page_frames.h>
#include <cowshed/cow/page_map.h>
#include <cowshed/cow/process_copies.h>

namespace cowshed::cow {

Expected<PageEntries> PageEntries::open(const ProcFiles& proc, pid_t pid) {
  const std::string path = proc.path(pid, "pagemap");
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return process_error(pid, path, errno);
  return PageEntries(fd);
}

PageEntries::PageEntries(PageEntries&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

PageEntries::~PageEntries() {
  if (fd_ >= 0) ::close(fd_);
}

void PageEntries::read(std::uint64_t address, std::span<PageEntry> to) const {
  static_assert(sizeof(PageEntry) == sizeof(std::uint64_t));
  std::fill(to.begin(), to.end(), PageEntry());
  const auto offset = static_cast<off_t>(address / kPageSize * sizeof(PageEntry));
  // What a short read leaves is absent.
  if (::pread(fd_, to.data(), to.size_bytes(), offset) < 0) return;
}

PageFrames PageFrames::read(const ProcFiles& proc, pid_t pid, const PageFrames& earlier) {
  PageFrames frames;
  const auto mappings = proc.maps(pid);
  auto pages = PageMap::open(proc, pid);
  const auto entries = PageEntries::open(proc, pid);
  if (!mappings || !pages || !entries) return frames;

  constexpr std::uint64_t kChunkBytes = kChunkPages * kPageSize;
  Chunk chunk{};
  std::uint64_t number = 0;  // of the chunk that is being filled; 0: none
  const auto finish = [&] {
    if (number == 0) return;
    const auto before = earlier.chunks_.find(number);
    const bool is_same = before != earlier.chunks_.end() &&
                         std::memcmp(before->second->data(), chunk.data(), sizeof chunk) == 0;
    frames.chunks_.emplace_hint(frames.chunks_.end(), number,
                                is_same ? before->second : std::make_shared<const Chunk>(chunk));
  };
  for (const Mapping& mapping : *mappings) {
    if (!mapping.can_be_copied()) continue;
    const auto anonymous = pages->anonymous_pages(mapping);
    if (!anonymous) continue;
    for (const PageRange& range : anonymous->ranges()) {
      for (std::uint64_t at = range.begin; at < range.end;) {
        if (at / kChunkBytes != number) {
          finish();
          number = at / kChunkBytes;
          chunk.fill(PageEntry());
        }
        const std::uint64_t end = std::min(range.end, (number + 1) * kChunkBytes);
        const std::uint64_t first = at % kChunkBytes / kPageSize;
        const auto part = std::span(chunk).subspan(first, (end - at) / kPageSize);
        entries->read(at, part);
        for (PageEntry& entry : part) entry = entry.place();
        frames.known_ = frames.known_ || part.front().frame() != 0;
        at = end;
      }
    }
  }
  finish();
  return frames;
}

PageEntry PageFrames::at(std::uint64_t address) const {
  const std::uint64_t page = address / kPageSize;
  const auto chunk = chunks_.find(page / kChunkPages);
  return chunk == chunks_.end() ? PageEntry() : chunk->second->at(page % kChunkPages);
}

}  // namespace cowshed::cow
