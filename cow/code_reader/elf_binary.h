#pragma once

#include <memory>
#include <optional>
#include <string>

#include <cowshed/cow/code_reader/code_reader.h>

struct Elf;

namespace cowshed::cow {

// A mapped ELF file, without a descriptor.
class ElfBinary {
 public:
  // Returns nullopt if the file cannot be loaded.
  static std::optional<ElfBinary> open(const std::string& path, int fd);
  // Returns the vDSO (CodeReader::kVdso).
  static std::optional<ElfBinary> vdso();

  const std::string& path() const { return path_; }
  Elf* elf() const { return elf_.get(); }
  CodeReader::Extent extent() const { return extent_; }
  std::map<CounterField, std::size_t> release_sites() const;
  // Returns the text at a link-time address, as the file has it; empty: it has none, or none that
  // ends after at most `most` bytes.
  std::string text_at(std::uint64_t address, std::size_t most) const;
  // Frees the pages that were read, which are megabytes of debug information.
  void release_pages() const;

 private:
  ElfBinary(std::string path, Elf* elf);
  bool read_extent();
  Language exported_interpreter() const;

  std::string path_;
  std::unique_ptr<Elf, int (*)(Elf*)> elf_;
  CodeReader::Extent extent_;
};

}  // namespace cowshed::cow
