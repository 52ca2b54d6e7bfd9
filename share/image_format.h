#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/share/freeze.h>

// The file format of image.h, see docs/image_format.md.  Reading it is pure: bytes in, checked
// structs out, whatever the bytes are.
namespace cowshed::image_format {

inline constexpr std::array<char, 8> kMagic = {'C', 'o', 'w', 'I', 'm', 'a', 'g', 'e'};
inline constexpr std::uint32_t kByteOrder = 0x01020304;
inline constexpr std::uint16_t kVersion = 1;
inline constexpr std::uint16_t kMachineX86 = 62;  // as ELF's e_machine
inline constexpr std::uint32_t kPage = 4096;
inline constexpr std::size_t kMostObjects = 65536;
inline constexpr std::size_t kBlock = kHugePage;  // of the payload, with a checksum

// A table in the file.
struct Section {
  std::uint64_t offset;    // from the start of the file
  std::uint64_t count;     // entries
  std::uint64_t checksum;  // of all its bytes
};

// The first page of the file.  Fields up to `page_bytes` keep their places in all versions.
struct Header {
  std::array<char, 8> magic;
  std::uint32_t byte_order;
  std::uint16_t version;
  std::uint16_t architecture;
  std::uint32_t page_bytes;
  std::uint32_t mode;        // FreezeMode at the save
  std::uint64_t checksum;    // of this page, with 0 here
  std::uint64_t base;        // address of the arena
  std::uint64_t capacity;    // bytes of address space
  std::uint64_t used;        // bytes of payload, a multiple of kBlock
  std::uint64_t payload;     // its offset in the file, a multiple of kBlock
  std::uint64_t code;        // code_id() of the process that saved
  std::uint64_t live_bytes;  // as ArenaStats
  std::uint64_t live_allocations;
  std::uint64_t taken;        // bytes of memory that the arena had
  std::uint64_t generation;   // how often it was frozen
  Section objects;            // of Object
  Section holes;              // of Hole
  Section blocks;             // one checksum for each kBlock of the payload
  std::array<char, 64> name;  // ends with a NUL
  std::array<std::byte, 3856> zero;
};

// A published object that has a name.
struct Object {
  std::uint64_t offset;  // in the payload
  std::uint64_t bytes;
  std::uint64_t alignment;
  std::uint64_t fingerprint;  // of the type: mangled name, size and alignment
  std::uint64_t type_size;    // of the type itself: of an array, std::span's
  std::uint32_t array;        // 0 or 1, as the next
  std::uint32_t spawn_safe;
  std::array<char, 64> name;   // ends with a NUL
  std::array<char, 272> type;  // as the compiler writes it; ends with a NUL, cut off at that
};

// 2 MiB ranges of the payload that had no memory.
struct Hole {
  std::uint64_t begin;
  std::uint64_t end;
};

static_assert(sizeof(Header) == kPage && sizeof(Object) == 384 && sizeof(Hole) == 16);

std::uint64_t checksum(std::span<const std::byte> bytes);

// That of the header itself.
std::uint64_t checksum(const Header& header);

// The header of a file of `file_bytes` that begins with `bytes`.  `who` begins the messages.
// Errors: bad_image (no image, damaged, truncated), unsupported (another version, architecture or
// page size).
Expected<Header> parse_header(std::span<const std::byte> bytes, std::uint64_t file_bytes,
                              const std::string& who);

// What lies between the header and the checksums of the blocks: `header.blocks.offset - kPage`
// bytes.
struct Tables {
  std::vector<Object> objects;
  std::vector<Run> holes;
};
Expected<Tables> parse_tables(const Header& header, std::span<const std::byte> bytes,
                              const std::string& who);

}  // namespace cowshed::image_format
