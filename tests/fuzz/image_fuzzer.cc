#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <span>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

#include <cowshed/share/image.h>
#include <cowshed/share/image_format.h>

#include "mutation.h"

// The input is an image up to its payload, which is a hole of the size that the header claims.
namespace {

using namespace cowshed;
namespace format = image_format;

constexpr std::size_t kMostVerified = 64U << 20U;
constexpr std::uint64_t kMostFile = std::uint64_t{1} << 42U;

int image_file() {
  static const int fd = memfd_create("image", MFD_CLOEXEC);
  return fd;
}

void must(bool condition) {
  if (!condition) {
    std::abort();
  }
}

// What the rest of the program relies on once the format has been accepted.
void check_accepted(const format::Header& header, const format::Tables& tables,
                    std::uint64_t file_bytes) {
  must(header.payload <= file_bytes && header.used <= file_bytes - header.payload);
  must(header.used <= header.capacity && header.base + header.capacity > header.base);
  must(header.blocks.count * format::kBlock == header.used);
  must(header.name.back() == '\0');
  must(tables.objects.size() == header.objects.count && tables.holes.size() == header.holes.count);
  for (const auto& object : tables.objects) {
    must(object.offset <= header.used && object.bytes <= header.used - object.offset);
    must(object.name.back() == '\0' && object.type.back() == '\0');
  }
  for (const Run& hole : tables.holes) {
    must(hole.begin < hole.end && hole.end <= header.used);
  }
}

// Reads the ends of each object where the image has been mapped.
void touch(const format::Header& header, const format::Tables& tables) {
  for (const auto& object : tables.objects) {
    const volatile auto* bytes =
        reinterpret_cast<const volatile std::byte*>(header.base + object.offset);
    if (object.bytes > 0) {
      static_cast<void>(bytes[0]);
      static_cast<void>(bytes[object.bytes - 1]);
    }
  }
}

void open_and_verify(std::span<const std::byte> input, const format::Header& header,
                     const format::Tables& tables, std::uint64_t file_bytes) {
  const int fd = image_file();
  must(ftruncate(fd, 0) == 0 && ftruncate(fd, static_cast<off_t>(file_bytes)) == 0);
  must(pwrite(fd, input.data(), input.size(), 0) == static_cast<ssize_t>(input.size()));
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  if (auto arena = open_image(path)) {
    touch(header, tables);
  } else {
    must(!arena.error().message.empty());
  }
  if (header.used <= kMostVerified) {
    static_cast<void>(verify_image(path));
  }
}

// Makes the checksums right again where they are within the input, so that what they guard is
// reached.
void repair(std::span<std::byte> image) {
  format::Header header;
  if (image.size() < sizeof(header)) {
    return;
  }
  std::memcpy(&header, image.data(), sizeof(header));
  const auto repair_section = [&](format::Section& section, std::size_t entry) {
    if (section.offset <= image.size() &&
        section.count <= (image.size() - section.offset) / entry) {
      section.checksum = format::checksum(image.subspan(section.offset, section.count * entry));
    }
  };
  repair_section(header.objects, sizeof(format::Object));
  repair_section(header.holes, sizeof(format::Hole));
  repair_section(header.blocks, sizeof(std::uint64_t));
  header.checksum = format::checksum(header);
  std::memcpy(image.data(), &header, sizeof(header));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto input = std::as_bytes(std::span(data, size));
  // The file is as long as its header wants, or, where that is absurd, as its input.
  format::Header claimed{};
  std::memcpy(&claimed, input.data(), std::min(input.size(), sizeof(claimed)));
  std::uint64_t file_bytes = size;
  if (claimed.payload <= kMostFile && claimed.used <= kMostFile) {
    file_bytes = std::max<std::uint64_t>(size, claimed.payload + claimed.used);
  }
  const auto header =
      format::parse_header(input.first(std::min(input.size(), sizeof(claimed))), file_bytes, "it");
  if (!header) {
    return 0;
  }
  const std::uint64_t tables_bytes = header->blocks.offset - format::kPage;
  if (tables_bytes > input.size() - format::kPage) {
    return 0;  // of zeros, whose checksums were found to be wrong often enough
  }
  const auto tables =
      format::parse_tables(*header, input.subspan(format::kPage, tables_bytes), "it");
  if (!tables) {
    return 0;
  }
  check_accepted(*header, *tables, file_bytes);
  if (file_bytes <= kMostFile) {
    open_and_verify(input, *header, *tables, file_bytes);
  }
  return 0;
}

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  constexpr std::size_t kFields = offsetof(format::Header, zero);
  constexpr std::size_t kObjectFields = format::kPage + offsetof(format::Object, name);
  size = fuzz::mutate(data, size, most, seed,
                      {{0, kFields}, {format::kPage, kObjectFields}, {format::kPage, most}});
  if (seed % 8 != 0) {
    repair(std::as_writable_bytes(std::span(data, size)));
  }
  return size;
}
