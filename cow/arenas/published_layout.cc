#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fmt/format.h>
#include <optional>
#include <span>
#include <string_view>
#include <thread>
#include <unistd.h>
#include <utility>

#include <cowshed/base/published_layout.h>
#include <cowshed/base/try.h>
#include <cowshed/cow/arenas/most_copied.h>
#include <cowshed/cow/arenas/published_layout.h>

namespace cowshed::cow {
namespace {

// The size of a table's entries, and their number.
struct Limits {
  std::uint64_t least_bytes = 0;
  std::uint64_t most_bytes = 0;
  std::uint64_t most_entries = 0;
};

// More than any version writes.  A hostile process can make us read twice their product.
template <class Entry>
constexpr Limits kLimits = {sizeof(Entry), 512, 1U << 16U};

constexpr int kAttempts = 20;
constexpr std::chrono::milliseconds kBetweenAttempts{1};

std::string text(std::span<const char> field) {
  return {field.begin(), std::ranges::find(field, '\0')};
}

bool is_layout(const Mapping& mapping) {
  return mapping.is_private && mapping.path == "/memfd:" COWSHED_LAYOUT_MEMFD " (deleted)";
}

class Reader {
 public:
  static Expected<Reader> open(const ProcFiles& proc, pid_t pid,
                               const std::vector<Mapping>& mappings) {
    const auto mapping = std::ranges::find_if(mappings, is_layout);
    if (mapping == mappings.end()) return not_published(pid);
    return open_at(proc, pid, *mapping);
  }
  // Looks at the places where a layout usually lies, and reads the mappings only if all are taken.
  static Expected<Reader> open(const ProcFiles& proc, pid_t pid) {
    bool is_any_free = false;
    constexpr std::uint64_t kRoom = 1ULL << 30U;  // at each place, at most
    TRY(auto reader, open_at(proc, pid, {}));
    for (const std::uint64_t place : cowshed_layout_places) {
      reader.mapping_.begin = place;
      reader.mapping_.end = place + kRoom;
      const auto header = reader.read_header();
      if (header && header->magic == COWSHED_LAYOUT_MAGIC) return reader;
      is_any_free = is_any_free || !header;
    }
    if (is_any_free) return not_published(pid);
    TRY(const auto mappings, proc.maps(pid));
    return open(proc, pid, mappings);
  }

  // nullopt: the process changed its layout meanwhile.
  Expected<std::optional<PublishedLayout>> attempt() const {
    TRY(auto header, read_header());
    if (header.sequence % 2 != 0) return std::nullopt;
    auto result = read_tables(header);
    const auto after = read_header();
    // If it has changed, what we read may be wrong without being malformed, or the reverse.
    if (after && after->sequence != header.sequence) return std::nullopt;
    if (!result) return tl::make_unexpected(std::move(result.error()));
    if (!after) return tl::make_unexpected(after.error());
    return std::move(*result);
  }

  // Of this process or, without a count, of one that forked it.
  Expected<std::vector<layout::Transfer>> transfers() const {
    TRY(const auto header, read_header());
    TRY_VOID(check(header));
    if (header.minor < 1 || header.transfers.count == 0) return std::vector<layout::Transfer>();
    TRY_VOID(check(header, header.transfers, kLimits<layout::Transfer>, "transfers"));
    return entries<layout::Transfer>(header.transfers);
  }

  Expected<std::vector<SentObjects>> sent_objects(const ProcFiles& proc) const {
    std::vector<SentObjects> result;
    TRY(const auto rows, transfers());
    if (rows.empty()) return result;
    TRY(const auto header, read_header());
    const std::uint64_t lane = rows.size() * sizeof(layout::TransferCount);
    TRY_VOID(check(header, header.transfer_lanes, {lane, 1U << 20U, 1024}, "counts"));
    TRY(const auto sums, sums_of_lanes(header, rows.size(), proc));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (sums[i].messages == 0) continue;
      const layout::Transfer& row = rows[i];
      result.push_back({text(row.origin), text(row.name), text(row.type),
                        std::string(to_string(layout::TransferKind{row.kind})), sums[i].messages,
                        sums[i].objects, sums[i].bytes});
    }
    keep_most_sent(result);
    return result;
  }

 private:
  Reader(FileDescriptor memory, std::string path, pid_t pid, Mapping mapping)
      : memory_(std::move(memory)),
        path_(std::move(path)),
        pid_(pid),
        mapping_(std::move(mapping)) {}
  static Expected<Reader> open_at(const ProcFiles& proc, pid_t pid, const Mapping& mapping) {
    TRY(auto memory, proc.open(pid, "mem"));
    return Reader(std::move(memory), proc.path(pid, "mem"), pid, mapping);
  }
  static tl::unexpected<Error> not_published(pid_t pid) {
    return make_error(ErrorCode::not_published,
                      fmt::format("PID {}: publishes no layout: it has created no arena", pid));
  }

  Expected<void> read(std::uint64_t address, void* to, std::size_t size) const {
    auto* next = static_cast<char*>(to);
    while (size > 0) {
      const ssize_t got = ::pread(memory_.get(), next, size, static_cast<off_t>(address));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return process_error(pid_, path_, errno);
      if (got == 0) return process_error(pid_, path_, ESRCH);  // its memory is gone
      next += got;
      address += static_cast<std::uint64_t>(got);
      size -= static_cast<std::size_t>(got);
    }
    return {};
  }

  tl::unexpected<Error> malformed(std::string_view what) const {
    return make_error(
        ErrorCode::unsupported,
        fmt::format("PID {}: its published layout is not one: {}; its objects cannot be named",
                    pid_, what));
  }

  Expected<layout::Header> read_header() const {
    layout::Header header{};
    if (mapping_.bytes() < sizeof header) return malformed("shorter than its header");
    TRY_VOID(read(mapping_.begin, &header, sizeof header));
    return header;
  }

  Expected<void> check(const layout::Header& header, const layout::Table& table,
                       const Limits& limits, std::string_view name) const {
    if (table.entry_bytes < limits.least_bytes || table.entry_bytes > limits.most_bytes) {
      return malformed(
          fmt::format("entries of {} bytes in its table of {}", table.entry_bytes, name));
    }
    if (table.count > limits.most_entries)
      return malformed(fmt::format("{} {}", table.count, name));
    if (table.offset > header.bytes ||
        table.count > (header.bytes - table.offset) / table.entry_bytes) {
      return malformed(fmt::format("its table of {} lies outside of it", name));
    }
    return {};
  }

  Expected<void> check(const layout::Header& header) const {
    if (header.magic != COWSHED_LAYOUT_MAGIC) return malformed("wrong magic number");
    if (header.major != COWSHED_LAYOUT_MAJOR) {
      return make_error(ErrorCode::unsupported,
                        fmt::format("PID {}: its published layout has version {}.{}, this program "
                                    "reads {}.x; use the cowtop of the library's own release",
                                    pid_, header.major, header.minor, COWSHED_LAYOUT_MAJOR));
    }
    if (header.bytes > mapping_.bytes()) return malformed("longer than its mapping");
    TRY_VOID(check(header, header.arenas, kLimits<layout::Arena>, "arenas"));
    return check(header, header.objects, kLimits<layout::Object>, "objects");
  }

  // Of the lanes where the process itself counts: a new child still has its parent's.
  Expected<std::vector<layout::TransferCount>> sums_of_lanes(const layout::Header& header,
                                                             std::size_t rows,
                                                             const ProcFiles& proc) const {
    const layout::Table& lanes = header.transfer_lanes;
    std::vector<layout::TransferCount> sums(rows);
    std::vector<layout::TransferCount> lane(rows);
    std::uint64_t own_pid = 0;
    for (std::uint32_t i = 0; i < lanes.count; ++i) {
      const std::uint64_t offset = lanes.offset + std::uint64_t{i} * lanes.entry_bytes;
      TRY_VOID(read(mapping_.begin + offset, lane.data(), rows * sizeof lane[0]));
      if (const std::uint64_t owner = lane[0].bytes; header.minor >= 3) {
        if (owner != 0 && own_pid == 0) own_pid = static_cast<std::uint64_t>(proc.own_pid(pid_));
        if (owner == 0 || owner != own_pid) continue;
      }
      for (std::size_t row = 0; row < rows; ++row) {
        sums[row].messages += lane[row].messages;
        sums[row].objects += lane[row].objects;
        sums[row].bytes += lane[row].bytes;
      }
    }
    return sums;
  }

  // Returns all entries of a checked table, also vacant ones.
  template <class Entry>
  Expected<std::vector<Entry>> entries(const layout::Table& table) const {
    std::vector<char> bytes(std::size_t{table.count} * table.entry_bytes);
    TRY_VOID(read(mapping_.begin + table.offset, bytes.data(), bytes.size()));
    std::vector<Entry> result(table.count);
    for (std::size_t i = 0; i < result.size(); ++i)
      std::memcpy(&result[i], bytes.data() + i * table.entry_bytes, sizeof(Entry));
    return result;
  }

  Expected<PublishedLayout> read_tables(const layout::Header& header) const {
    TRY_VOID(check(header));
    TRY(const auto arenas, entries<layout::Arena>(header.arenas));
    TRY(const auto objects, entries<layout::Object>(header.objects));
    PublishedLayout result;
    result.settled_bytes = header.settled_bytes;
    for (const layout::Arena& arena : arenas) {
      if (arena.begin == 0) continue;
      if (arena.end < arena.begin || arena.used > arena.end - arena.begin)
        return malformed("an arena ends before it begins");
      result.arenas.push_back({text(arena.name), arena.begin, arena.end});
    }
    for (const layout::Object& object : objects) {
      if (object.address == 0) continue;
      if (object.bytes > UINT64_MAX - object.address) return malformed("an object without end");
      if (object.arena >= arenas.size()) return malformed("an object in no arena");
      result.objects.push_back({text(object.name), text(object.type),
                                text(arenas[object.arena].name), object.address, object.bytes});
    }
    return result;
  }

  FileDescriptor memory_;
  std::string path_;
  pid_t pid_;
  Mapping mapping_;
};

// Of the first.
Expected<PublishedLayout> read_layout(const ProcFiles& proc, pid_t pid,
                                      const std::vector<Mapping>& mappings) {
  TRY(const auto reader, Reader::open(proc, pid, mappings));
  for (int i = 0; i < kAttempts; ++i) {
    TRY(auto result, reader.attempt());
    if (result) return std::move(*result);
    std::this_thread::sleep_for(kBetweenAttempts);
  }
  return tl::make_unexpected(
      Error{ErrorCode::system_call, EAGAIN,
            fmt::format("PID {}: its published layout keeps changing; try again", pid)});
}

}  // namespace

Expected<PublishedLayout> read_published_layout(const ProcFiles& proc, pid_t pid,
                                                const std::vector<Mapping>& mappings) {
  TRY(auto all, read_layout(proc, pid, mappings));
  auto first = std::ranges::find_if(mappings, is_layout);
  for (auto each = std::next(first); each != mappings.end(); ++each) {
    if (!is_layout(*each)) continue;
    TRY(const auto more, read_layout(proc, pid, {*each}));
    all.arenas.insert(all.arenas.end(), more.arenas.begin(), more.arenas.end());
    all.objects.insert(all.objects.end(), more.objects.begin(), more.objects.end());
    all.settled_bytes += more.settled_bytes;
  }
  return all;
}

std::uint64_t settled_bytes(const ProcFiles& proc, pid_t pid,
                            const std::vector<Mapping>& mappings) {
  if (std::ranges::none_of(mappings, &Mapping::is_settled)) return 0;
  const auto layout = read_published_layout(proc, pid, mappings);
  return layout ? layout->settled_bytes : 0;
}

Expected<std::vector<SentObjects>> read_sent_objects(const ProcFiles& proc, pid_t pid,
                                                     const std::vector<Mapping>& mappings) {
  TRY(const auto reader, Reader::open(proc, pid, mappings));
  return reader.sent_objects(proc);
}

Expected<std::vector<SentObjects>> read_sent_objects(const ProcFiles& proc, pid_t pid) {
  TRY(const auto reader, Reader::open(proc, pid));
  return reader.sent_objects(proc);
}

bool inherited_freeze(const ProcFiles& proc, pid_t pid) {
  const auto reader = Reader::open(proc, pid);
  const auto rows = reader ? reader->transfers() : tl::make_unexpected(reader.error());
  return rows && std::any_of(rows->begin(), rows->end(), [](const layout::Transfer& row) {
           return text(row.origin) == kFreeze;
         });
}

}  // namespace cowshed::cow
