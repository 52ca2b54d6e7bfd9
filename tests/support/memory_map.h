#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <sys/types.h>
#include <vector>

// What this process has mapped and open, as the kernel says.
namespace cowshed::test {

struct Mapping {
  std::uintptr_t begin, end;
  std::string permissions;
  ino_t inode;
  std::string name;  // of the file, "" when there is none
};
std::vector<Mapping> all_mappings();
// All zero when nothing is mapped there.
Mapping mapping_at(const void* address);
inline std::string mapping_name(const void* address) { return mapping_at(address).name; }
inline ino_t inode_at(const void* address) { return mapping_at(address).inode; }
// Of this process so far.
long page_faults();

// The sum of a field of /proc/self/smaps over the mappings of [begin, begin + size).
std::size_t smaps_kib(const std::string& field, const void* begin, std::size_t size);
// Pages of its own in [begin, begin + size), which for a private file mapping are the copied ones:
// by /proc/self/pagemap those present and not of a file (bit 61).
std::size_t own_pages(const void* begin, std::size_t size);

// Of a line "key: figure" of a file of /proc, where memory is in KiB; 0 when there is none.
std::size_t figure_of(const std::string& file, const std::string& key);

// The descriptors that this process has open, and what they are of; the one of the folder is "".
std::map<int, std::string> descriptors();
// Those whose target begins so.
std::vector<int> descriptors_of(const std::string& target);
// How many descriptors this process has open.
inline std::size_t open_descriptors() { return descriptors().size(); }

}  // namespace cowshed::test
