#include <algorithm>
#include <array>
#include <chrono>
#include <unistd.h>

#define XXH_INLINE_ALL  // without the library
#include <xxhash.h>

#include <cowshed/cow/sandbox/page_hasher.h>
#include <cowshed/cow/sandbox/wire.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kReadBytes = 64 << 10;  // more does not fit into a core's caches
using Page = std::array<char, kPageSize>;
using Pages = std::array<Page, kReadBytes / kPageSize>;

std::uint64_t hash_of(const Page& page) {
  static const std::uint64_t of_zeros = XXH3_64bits(Page{}.data(), sizeof(Page));
  const std::uint64_t hash = XXH3_64bits(page.data(), page.size());
  if (hash == of_zeros) return PageHasher::kZeros;
  return std::max(hash, PageHasher::kUnread + 1);
}

void write_hashes(int memory, PageRange range, WireWriter& to) {
  alignas(kPageSize) static Pages pages;
  while (range.begin < range.end) {
    const std::size_t bytes = std::min(range.end - range.begin, sizeof pages);
    const ssize_t got = ::pread(memory, &pages, bytes, static_cast<off_t>(range.begin));
    const std::size_t read = got < 0 ? 0 : static_cast<std::size_t>(got) / kPageSize;
    for (std::size_t i = 0; i < read; ++i) to.number(hash_of(pages.at(i)));
    if (read == 0) to.number(PageHasher::kUnread);
    range.begin += std::max<std::size_t>(read, 1) * kPageSize;
  }
}

void serve_hashes(const HelperSocket& socket) {
  while (const auto message = socket.receive()) {
    WireReader request(message->bytes);
    WireWriter reply;
    for (auto range = request.number<PageRange>(); request.is_good();
         range = request.number<PageRange>())
      write_hashes(message->file.get(), range, reply);
    if (!socket.send(reply.bytes())) return;
  }
}

}  // namespace

std::optional<std::vector<std::uint64_t>> PageHasher::hash(const FileDescriptor& memory,
                                                           const std::vector<PageRange>& ranges) {
  constexpr std::chrono::milliseconds kMost{5000};
  constexpr std::chrono::milliseconds kMostAsleep{1000};
  if (!process_)
    process_ = HelperProcess::start("cowtop-hash", HelperProcess::Rights::none, serve_hashes);
  if (!process_) return std::nullopt;
  WireWriter request;
  std::size_t pages = 0;
  for (const PageRange& range : ranges) {
    request.number(range);
    pages += (range.end - range.begin) / kPageSize;
  }
  std::vector<std::uint64_t> hashes(pages);
  if (pages == 0) return hashes;
  auto reply = process_->socket().send(request.bytes(), memory.get())
                   ? process_->receive(kMost, kMostAsleep)
                   : std::nullopt;
  if (!reply || reply->bytes.size() != pages * sizeof(std::uint64_t)) {
    earlier_cpu_ns_ = cpu_ns();
    process_.reset();
    return std::nullopt;
  }
  WireReader wire(reply->bytes);
  for (std::uint64_t& each : hashes) each = wire.number<std::uint64_t>();
  return hashes;
}

std::uint64_t PageHasher::cpu_ns() const {
  return earlier_cpu_ns_ + (process_ ? process_->cpu_ns() : 0);
}

}  // namespace cowshed::cow
