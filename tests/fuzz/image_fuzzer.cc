#include <cowshed/share/arena_image.h>
#include <cowshed/share/codec.h>
#include <cowshed/share/export/image_format.h>
#include <cowshed/share/export/parcel_format.h>
#include <cowshed/share/os/huge_pages.h>
#include <cowshed/share/wire/content.h>

#include "mutation.h"

// The input is an image up to its payload, which is a hole of the size that the parcel claims.
namespace {

using namespace cowshed;
using arch::kPage;
using fuzz::must;
using image_format::Header;
using internal::kHugePage;
using parcel_format::Contents;

constexpr std::uint64_t kMostFile = std::uint64_t{1} << 42U;

// What the rest of the program relies on once the parcel has been accepted.
void check_accepted(const Contents::Arena& arena) {
  const auto& description = arena.description;
  must(description.used <= description.capacity &&
       description.begin + description.capacity > description.begin);
  must(description.name.size() < 64);
  for (const auto& object : arena.objects) {
    const std::uint64_t offset = object.address - description.begin;
    must(offset <= description.used && object.bytes <= description.used - offset);
    must(object.name.size() < 64);
  }
  for (const internal::Run& hole : description.past.holes)
    must(hole.begin < hole.end && hole.end <= description.used);
}

// Reads the ends of each object where the image has been mapped.
void touch(const Contents::Arena& arena) {
  for (const auto& object : arena.objects) {
    const volatile auto* bytes = reinterpret_cast<const volatile std::byte*>(object.address);
    if (object.bytes > 0) {
      static_cast<void>(bytes[0]);
      static_cast<void>(bytes[object.bytes - 1]);
    }
  }
}

void open_as_file(std::span<const std::byte> input, std::uint64_t file_bytes,
                  const Contents::Arena& arena) {
  static const int fd = memfd_create("image", MFD_CLOEXEC);
  must(ftruncate(fd, 0) == 0 && ftruncate(fd, static_cast<off_t>(file_bytes)) == 0);
  must(pwrite(fd, input.data(), input.size(), 0) == static_cast<ssize_t>(input.size()));
  if (auto opened = open_image("/proc/self/fd/" + std::to_string(fd))) touch(arena);
  else must(!opened.error().message.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto input = std::as_bytes(std::span(data, size));
  if (size < kPage) return 0;
  Header header;
  std::memcpy(&header, input.data(), sizeof header);
  try {
    Decoder from(input.subspan(kPage));
    const Contents contents = parcel_format::read(from);
    for (const auto& arena : contents.arenas) check_accepted(arena);
    const std::uint64_t used =
        contents.arenas.empty() ? 0 : contents.arenas.front().description.used;
    if (!contents.arenas.empty() && header.payload <= kMostFile && used <= kMostFile) {
      open_as_file(input, std::max<std::uint64_t>(size, header.payload + used),
                   contents.arenas.front());
    }
  } catch (const std::runtime_error&) {
  }
  return 0;
}

// Makes the header right again, so that what the checksum guards is reached.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned seed) {
  constexpr std::size_t kFields = sizeof(Header);
  size = fuzz::mutate(data, size, most, seed, {{0, kFields}, {kPage, most}, {kPage, most}});
  if (seed % 8 != 0 && size >= kPage) {
    const auto head = std::as_writable_bytes(std::span(data, size));
    Header header;
    std::memcpy(&header, data, sizeof header);
    header.parcel_bytes = size - kPage;
    header.payload = (size + kHugePage - 1) / kHugePage * kHugePage;
    std::memcpy(data, &header, sizeof header);
    header.checksum = image_format::checksum_of(head);
    std::memcpy(data, &header, sizeof header);
  }
  return size;
}
