#pragma once

#include <cstdint>
#include <elfutils/libdwfl.h>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/cow/code_reader/dwfl_modules.h>
#include <cowshed/cow/copy_profile.h>

namespace cowshed::cow {

// Names of a binary's code, from its debug information, else its symbol table.  Keeps them open.
class BinaryNames {
 public:
  // The binary must outlive this.
  explicit BinaryNames(const DwflBinary& binary);
  BinaryNames(const BinaryNames&) = delete;
  BinaryNames& operator=(const BinaryNames&) = delete;
  ~BinaryNames();

  // As CodeReader::frames().
  std::vector<Frame> frames(std::uint64_t address);

 private:
  Dwarf_Die* unit_of(std::uint64_t address, Dwarf_Addr& bias);
  std::vector<Frame> from_dwarf(std::uint64_t address);
  std::string from_symbol_table(std::uint64_t address);

  std::optional<SharedDebugFile> shared_;
  OwnDwfl dwfl_;
  Dwfl_Module* module_ = nullptr;
  bool has_lines_ = false;
};

}  // namespace cowshed::cow
