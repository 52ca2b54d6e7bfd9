#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fmt/format.h>
#include <optional>
#include <string_view>
#include <thread>
#include <unistd.h>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/cow/arenas/published_layout.h>

namespace cowshed::cow {
namespace {

// More than any version writes; what a process may make us read is 2 times their product.
constexpr std::uint32_t kMaxEntries = 1U << 17U;
constexpr std::uint32_t kMaxEntryBytes = 1024;

constexpr std::uint32_t kMaxLaneBytes = 1U << 20U;
constexpr std::uint32_t kMaxLanes = 1024;

constexpr int kAttempts = 20;
constexpr std::chrono::milliseconds kBetweenAttempts{1};

struct Memory {
  FileDescriptor file;
  pid_t pid;
  std::string path;

  static Expected<Memory> open(const ProcFiles& proc, pid_t pid) {
    TRY(auto file, proc.open(pid, "mem"));
    return Memory{std::move(file), pid, proc.path(pid, "mem")};
  }

  Expected<void> read(std::uint64_t address, void* to, std::size_t size) const {
    auto* next = static_cast<char*>(to);
    while (size > 0) {
      const ssize_t got = ::pread(file.get(), next, size, static_cast<off_t>(address));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return process_error(pid, path, errno);
      if (got == 0) return process_error(pid, path, ESRCH);  // its memory is gone
      next += got;
      address += static_cast<std::uint64_t>(got);
      size -= static_cast<std::size_t>(got);
    }
    return {};
  }
};

template <std::size_t size>
std::string text(const std::array<char, size>& field) {
  return {field.begin(), std::find(field.begin(), field.end(), '\0')};
}

class Reader {
 public:
  Reader(const Memory& memory, pid_t pid, const Mapping& mapping)
      : memory_(memory), pid_(pid), mapping_(mapping) {}

  // Nothing: the process changed it meanwhile.
  Expected<std::optional<PublishedLayout>> attempt() const {
    TRY(auto header, read_header());
    if (header.sequence % 2 != 0) return std::nullopt;
    auto result = read_tables(header);
    const auto after = read_header();
    // Of what changed under our eyes, nothing is known, not even that it is wrong.
    if (after && after->sequence != header.sequence) return std::nullopt;
    if (!result) return tl::make_unexpected(std::move(result.error()));
    if (!after) return tl::make_unexpected(after.error());
    return std::move(*result);
  }

  Expected<std::vector<PublishedTransfer>> transfers() const {
    std::vector<PublishedTransfer> result;
    TRY(const auto header, read_header());
    TRY_VOID(check(header));
    if (header.minor < 1 || header.transfers.count == 0) return result;
    TRY_VOID(check_transfers(header));
    TRY(const auto rows, entries<layout::Transfer>(header.transfers));
    TRY(const auto sums, sums_of_lanes(header.transfer_lanes, rows.size()));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (sums[i].messages == 0) continue;
      const layout::Transfer& row = rows[i];
      result.push_back({text(row.origin), text(row.name), text(row.type), row.kind, sums[i]});
    }
    return result;
  }

 private:
  tl::unexpected<Error> malformed(std::string_view what) const {
    return make_error(
        ErrorCode::unsupported,
        fmt::format("PID {}: its published layout is not one: {}; its objects cannot be named",
                    pid_, what));
  }

  Expected<layout::Header> read_header() const {
    layout::Header header;
    if (mapping_.bytes() < sizeof header) return malformed("shorter than its header");
    TRY_VOID(memory_.read(mapping_.begin, &header, sizeof header));
    return header;
  }

  Expected<void> check(const layout::Header& header, const layout::Table& table,
                       std::size_t least_entry, std::string_view name) const {
    if (table.entry_bytes < least_entry || table.entry_bytes > kMaxEntryBytes) {
      return malformed(
          fmt::format("entries of {} bytes in its table of {}", table.entry_bytes, name));
    }
    if (table.count > kMaxEntries) return malformed(fmt::format("{} {}", table.count, name));
    if (table.offset > header.bytes ||
        table.count > (header.bytes - table.offset) / table.entry_bytes) {
      return malformed(fmt::format("its table of {} lies outside of it", name));
    }
    return {};
  }

  Expected<void> check(const layout::Header& header) const {
    if (header.magic != layout::kMagic) return malformed("wrong magic number");
    if (header.major != layout::kMajor) {
      return make_error(ErrorCode::unsupported,
                        fmt::format("PID {}: its published layout has version {}.{}, this program "
                                    "reads {}.x; use the cowtop of the library's own release",
                                    pid_, header.major, header.minor, layout::kMajor));
    }
    if (header.bytes > mapping_.bytes()) return malformed("longer than its mapping");
    auto good = check(header, header.arenas, sizeof(layout::Arena), "arenas");
    return good ? check(header, header.objects, sizeof(layout::Object), "objects") : good;
  }

  Expected<void> check_transfers(const layout::Header& header) const {
    if (auto good = check(header, header.transfers, sizeof(layout::Transfer), "transfers"); !good)
      return good;
    const layout::Table& lanes = header.transfer_lanes;
    const std::uint64_t least =
        std::uint64_t{header.transfers.count} * sizeof(layout::TransferCount);
    if (lanes.entry_bytes < least || lanes.entry_bytes > kMaxLaneBytes || lanes.count > kMaxLanes ||
        lanes.offset > header.bytes ||
        lanes.count > (header.bytes - lanes.offset) / lanes.entry_bytes) {
      return malformed("its table of counts lies outside of it or is too small");
    }
    return {};
  }

  Expected<std::vector<layout::TransferCount>> sums_of_lanes(const layout::Table& lanes,
                                                             std::size_t rows) const {
    std::vector<layout::TransferCount> sums(rows);
    std::vector<layout::TransferCount> lane(rows);
    for (std::uint32_t i = 0; i < lanes.count; ++i) {
      const std::uint64_t offset = lanes.offset + std::uint64_t{i} * lanes.entry_bytes;
      TRY_VOID(memory_.read(mapping_.begin + offset, lane.data(), rows * sizeof lane[0]));
      for (std::size_t row = 0; row < rows; ++row) {
        sums[row].messages += lane[row].messages;
        sums[row].objects += lane[row].objects;
        sums[row].bytes += lane[row].bytes;
      }
    }
    return sums;
  }

  // The entries of a table that was checked, vacant ones among them.
  template <class Entry>
  Expected<std::vector<Entry>> entries(const layout::Table& table) const {
    std::vector<char> bytes(std::size_t{table.count} * table.entry_bytes);
    TRY_VOID(memory_.read(mapping_.begin + table.offset, bytes.data(), bytes.size()));
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

  const Memory& memory_;
  pid_t pid_;
  const Mapping& mapping_;
};

Expected<const Mapping*> layout_mapping(pid_t pid, const std::vector<Mapping>& mappings) {
  const auto mapping = std::find_if(mappings.begin(), mappings.end(), [](const Mapping& each) {
    return each.is_private && each.path == fmt::format("/memfd:{} (deleted)", layout::kMemfdName);
  });
  if (mapping == mappings.end()) {
    return make_error(ErrorCode::not_published,
                      fmt::format("PID {}: publishes no layout: it has created no arena", pid));
  }
  return &*mapping;
}

}  // namespace

Expected<PublishedLayout> read_published_layout(const ProcFiles& proc, pid_t pid,
                                                const std::vector<Mapping>& mappings) {
  TRY(const auto mapping, layout_mapping(pid, mappings));
  TRY(const auto memory, Memory::open(proc, pid));
  const Reader reader(memory, pid, *mapping);
  for (int i = 0; i < kAttempts; ++i) {
    TRY(auto result, reader.attempt());
    if (result) return std::move(*result);
    std::this_thread::sleep_for(kBetweenAttempts);
  }
  return tl::make_unexpected(
      Error{ErrorCode::system_call, EAGAIN,
            fmt::format("PID {}: its published layout keeps changing; try again", pid)});
}

Expected<std::vector<PublishedTransfer>> read_published_transfers(
    const ProcFiles& proc, pid_t pid, const std::vector<Mapping>& mappings) {
  TRY(const auto mapping, layout_mapping(pid, mappings));
  TRY(const auto memory, Memory::open(proc, pid));
  return Reader(memory, pid, *mapping).transfers();
}

}  // namespace cowshed::cow
