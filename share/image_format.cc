#include <algorithm>
#include <bit>
#include <cctype>
#include <cstring>

#include <cowshed/share/image_format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace cowshed::image_format {
namespace {

constexpr std::uint64_t kEndOfAddresses = std::uint64_t{1} << 47U;

template <std::size_t size>
bool is_text(const std::array<char, size>& field) {
  const auto end = std::find(field.begin(), field.end(), '\0');
  return end != field.begin() && end != field.end() &&
         std::all_of(end, field.end(), [](char c) { return c == '\0'; });
}

bool is_flag(std::uint32_t value) { return value <= 1; }

tl::unexpected<Error> bad(const std::string& who, const std::string& what) {
  return make_error(ErrorCode::bad_image,
                    who + ": " + what + "; make it again with save_image(), or copy it again");
}

// True when the table begins at `offset` and ends at most at `end`; `offset` becomes its end.
bool is_next(const Section& section, std::uint64_t entry_bytes, std::uint64_t end,
             std::uint64_t& offset) {
  if (section.offset != offset || offset > end || section.count > (end - offset) / entry_bytes) {
    return false;
  }
  offset += section.count * entry_bytes;
  return true;
}

// Of a header whose checksum is right; so that no other can make us read or map what is not there.
bool is_consistent(const Header& header) {
  const auto is_whole = [](std::uint64_t value) { return value % kBlock == 0; };
  if (!is_whole(header.base) || !is_whole(header.capacity) || !is_whole(header.used) ||
      !is_whole(header.payload) || header.base == 0 || header.capacity == 0 ||
      header.base >= kEndOfAddresses || header.capacity > kEndOfAddresses - header.base ||
      header.used > header.capacity || header.payload >= kEndOfAddresses) {
    return false;
  }
  std::uint64_t offset = kPage;
  return is_next(header.objects, sizeof(Object), header.payload, offset) &&
         is_next(header.holes, sizeof(Hole), header.payload, offset) &&
         is_next(header.blocks, sizeof(std::uint64_t), header.payload, offset) &&
         header.objects.count <= kMostObjects && header.holes.count <= header.used / kBlock &&
         header.blocks.count == header.used / kBlock &&
         header.mode <= static_cast<std::uint32_t>(FreezeMode::lenient) && header.generation > 0 &&
         header.generation <= UINT32_MAX && is_text(header.name);
}

bool is_consistent(const Object& object, std::uint64_t used) {
  return object.offset <= used && object.bytes <= used - object.offset &&
         std::has_single_bit(object.alignment) && object.offset % object.alignment == 0 &&
         is_flag(object.array) && (object.array == 1 || object.bytes == object.type_size) &&
         is_flag(object.spawn_safe) && is_text(object.name) && is_text(object.type);
}

template <class Entry>
std::span<const std::byte> part(std::span<const std::byte> bytes, const Section& section) {
  return bytes.subspan(section.offset - kPage, section.count * sizeof(Entry));
}

template <class Entry>
std::vector<Entry> entries(std::span<const std::byte> bytes) {
  std::vector<Entry> result(bytes.size() / sizeof(Entry));
  if (!result.empty()) {
    std::memcpy(result.data(), bytes.data(), bytes.size());
  }
  return result;
}

}  // namespace

std::uint64_t checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::uint64_t checksum(const Header& header) {
  Header copy = header;
  copy.checksum = 0;
  return checksum(std::as_bytes(std::span(&copy, 1)));
}

Expected<Header> parse_header(std::span<const std::byte> bytes, std::uint64_t file_bytes,
                              const std::string& who) {
  if (bytes.size() < sizeof(kMagic) ||
      std::memcmp(bytes.data(), kMagic.data(), sizeof(kMagic)) != 0) {
    return bad(who, "is not an image of an arena");
  }
  if (bytes.size() < sizeof(Header)) {
    return bad(who, "is truncated in its header");
  }
  Header header;
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.byte_order != kByteOrder || header.architecture != kMachineX86) {
    return make_error(ErrorCode::unsupported,
                      who + " was saved on another architecture (" +
                          std::to_string(header.architecture) +
                          " as an ELF machine); images are for x86-64 only");
  }
  if (header.version != kVersion) {
    return make_error(ErrorCode::unsupported, who + " has format version " +
                                                  std::to_string(header.version) +
                                                  ", this program reads version " +
                                                  std::to_string(kVersion) + "; save it again");
  }
  if (header.page_bytes != kPage) {
    return make_error(ErrorCode::unsupported, who + " was saved with pages of " +
                                                  std::to_string(header.page_bytes) +
                                                  " bytes; this machine has pages of 4096");
  }
  if (header.checksum != checksum(header)) {
    return bad(who, "has a damaged header (its checksum is wrong)");
  }
  if (!is_consistent(header)) {
    return bad(who, "has a header that contradicts itself");
  }
  if (file_bytes < header.payload + header.used) {
    return bad(who, "is truncated: it has " + std::to_string(file_bytes) + " bytes of " +
                        std::to_string(header.payload + header.used));
  }
  return header;
}

Expected<Tables> parse_tables(const Header& header, std::span<const std::byte> bytes,
                              const std::string& who) {
  if (bytes.size() != header.blocks.offset - kPage) {
    return bad(who, "is truncated in its tables");
  }
  const auto objects = part<Object>(bytes, header.objects);
  const auto holes = part<Hole>(bytes, header.holes);
  if (checksum(objects) != header.objects.checksum || checksum(holes) != header.holes.checksum) {
    return bad(who, "has damaged tables (their checksum is wrong)");
  }
  Tables tables;
  tables.objects = entries<Object>(objects);
  if (!std::all_of(tables.objects.begin(), tables.objects.end(),
                   [&](const Object& object) { return is_consistent(object, header.used); })) {
    return bad(who, "has a published object that contradicts itself");
  }
  std::uint64_t before = 0;
  for (const Hole& hole : entries<Hole>(holes)) {
    if (hole.begin % kBlock != 0 || hole.end % kBlock != 0 || hole.begin < before ||
        hole.end <= hole.begin || hole.end > header.used) {
      return bad(who, "has a hole that contradicts itself");
    }
    before = hole.end;
    tables.holes.push_back({hole.begin, hole.end});
  }
  return tables;
}

}  // namespace cowshed::image_format
