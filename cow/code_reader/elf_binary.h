#pragma once

#include <memory>
#include <optional>
#include <string>

#include <cowshed/cow/code_reader/code_reader.h>

struct Elf;

namespace cowshed::cow {

// An ELF file that is open: mapped, without a descriptor.
class ElfBinary {
 public:
  // nullopt where the file is none that can be loaded.
  static std::optional<ElfBinary> open(const std::string& path, int fd);
  // The kernel's code in every process, from this process's own.
  static std::optional<ElfBinary> vdso();

  const std::string& path() const { return path_; }
  Elf* elf() const { return elf_.get(); }
  CodeReader::Extent extent() const { return extent_; }
  std::map<CounterField, std::size_t> release_sites() const;
  // Gives back what has been read of it, until somebody looks again: of debug information, MBs.
  void release_pages() const;

 private:
  ElfBinary(std::string path, Elf* elf);
  bool read_extent();

  std::string path_;
  std::unique_ptr<Elf, int (*)(Elf*)> elf_;
  CodeReader::Extent extent_;
};

}  // namespace cowshed::cow
