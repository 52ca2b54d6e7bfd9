#include <algorithm>
#include <bit>
#include <tuple>
#include <type_traits>
#include <utility>

#include <cowshed/share/export/parcel_format.h>
#include <cowshed/share/os/huge_pages.h>

namespace cowshed {

using namespace internal;

// A descriptor's number means nothing in another process, and the struct has padding.
template <>
inline constexpr bool spawn_safe<Segment> = false;

namespace parcel_format {

// Returns the fields of a struct in the order in which they are sent.
template <class T>
constexpr auto kFields = nullptr;
template <>
constexpr auto kFields<Segment> = [](auto& it) { return std::tie(it.run, it.file.fd, it.payload); };
template <>
constexpr auto kFields<ArenaCore::Frozen> = [](auto& it) {
  return std::tie(it.live_bytes, it.live_allocations, it.taken, it.on_disk, it.small,
                  it.huge_page_error, it.holes);
};
template <>
constexpr auto kFields<ArenaCore::Description> = [](auto& it) {
  return std::tie(it.name, it.begin, it.capacity, it.used, it.mode, it.generation, it.past,
                  it.segments);
};
template <>
constexpr auto kFields<registry::Object> = [](auto& it) {
  return std::tie(it.name, it.type, it.fingerprint, it.type_size, it.address, it.bytes,
                  it.alignment, it.array, it.spawn_safe, it.code, it.generation, it.publisher);
};
template <>
constexpr auto kFields<Contents::Arena> =
    [](auto& it) { return std::tie(it.description, it.objects); };
template <>
constexpr auto kFields<Contents::Lost> = [](auto& it) { return std::tie(it.arena, it.objects); };
template <>
constexpr auto kFields<Contents> =
    [](auto& it) { return std::tie(it.tree, it.last_generation, it.arenas, it.lost); };

template <class T>
concept Struct = !std::is_null_pointer_v<std::remove_const_t<decltype(kFields<T>)>>;

}  // namespace parcel_format

template <parcel_format::Struct T>
struct Codec<T> {
  static void encode(Encoder& to, const T& value) {
    std::apply([&](const auto&... fields) { (to.put(fields), ...); },
               parcel_format::kFields<T>(value));
  }
  static T decode(Decoder& from) {
    T value;
    std::apply(
        [&](auto&... fields) {
          ((fields = from.take<std::remove_reference_t<decltype(fields)>>()), ...);
        },
        parcel_format::kFields<T>(value));
    return value;
  }
};

namespace parcel_format {
namespace {

constexpr std::uint64_t kEndOfAddresses = arch::kEndOfAddresses + arch::kPage;

bool is_name(const std::string& text) {
  return text.size() <= 63 && text.find('\0') == std::string::npos;
}

// Whether the value is a multiple of 2 MiB.
bool is_size(std::uint64_t value, std::uint64_t most) {
  return value <= most && value % kHugePage == 0;
}

bool are_runs(const std::vector<Run>& runs, std::size_t used) {
  std::size_t before = 0;
  return std::ranges::all_of(runs, [&](const Run& run) {
    return is_size(run.begin, used) && is_size(run.end, used) && run.begin < run.end &&
           run.begin >= std::exchange(before, run.end);
  });
}

bool are_segments(const std::vector<Segment>& segments, std::size_t used) {
  std::size_t begin = 0;
  int files = 0;
  return std::ranges::all_of(segments,
                             [&](const Segment& segment) {
                               const auto& [run, held, payload] = segment;
                               const int file = held.fd;
                               const bool right = run.begin == std::exchange(begin, run.end) &&
                                                  run.begin < run.end && is_size(run.end, used) &&
                                                  file >= 0 && file <= files &&
                                                  is_size(payload, kEndOfAddresses - 1);
                               if (right) files = std::max(files, file + 1);
                               return right && files <= ArenaCore::kMostFiles;
                             }) &&
         begin == used;
}

bool is_right(const ArenaCore::Description& arena) {
  return is_name(arena.name) && !arena.name.empty() && arena.begin > 0 &&
         is_size(arena.begin, kEndOfAddresses - 1) && arena.capacity > 0 &&
         is_size(arena.capacity, kEndOfAddresses - arena.begin) &&
         is_size(arena.used, arena.capacity) && arena.mode <= FreezeMode::lenient &&
         arena.generation > 0 && are_runs(arena.past.small, arena.used) &&
         are_runs(arena.past.holes, arena.used) && are_segments(arena.segments, arena.used);
}

bool is_right(const registry::Object& object) {
  return is_name(object.name) && object.generation > 0;
}

bool lies_in(const registry::Object& object, const ArenaCore::Description& arena) {
  const std::uint64_t offset = object.address - arena.begin;
  return object.address >= arena.begin && offset <= arena.used &&
         object.bytes <= arena.used - offset && std::has_single_bit(object.alignment) &&
         object.address % object.alignment == 0 &&
         (object.array || object.bytes == object.type_size);
}

bool is_right(const Contents& contents) {
  return contents.tree != 0 &&
         std::ranges::all_of(contents.arenas,
                             [](const Contents::Arena& arena) {
                               return is_right(arena.description) &&
                                      std::ranges::all_of(arena.objects, [&](const auto& object) {
                                        return is_right(object) &&
                                               lies_in(object, arena.description);
                                      });
                             }) &&
         std::ranges::all_of(contents.lost, [](const Contents::Lost& lost) {
           return is_name(lost.arena) && std::ranges::all_of(lost.objects, [](const auto& object) {
                    return is_right(object);
                  });
         });
}

}  // namespace

void write(Encoder& to, const Contents& contents) { to.put(contents); }

Contents read(Decoder& from) {
  auto contents = from.take<Contents>();
  if (!is_right(contents)) throw_damaged();
  return contents;
}

}  // namespace parcel_format
}  // namespace cowshed
