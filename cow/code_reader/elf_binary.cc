#include <algorithm>
#include <cstring>
#include <gelf.h>
#include <libelf.h>
#include <limits>
#include <sys/auxv.h>
#include <sys/mman.h>

#include <cowshed/cow/code_reader/elf_binary.h>

namespace cowshed::cow {

ElfBinary::ElfBinary(std::string path, Elf* elf) : path_(std::move(path)), elf_(elf, ::elf_end) {}

bool ElfBinary::read_extent() {
  std::size_t count = 0;
  if (!elf_ || ::elf_getphdrnum(elf_.get(), &count) != 0) return false;
  extent_.begin = std::numeric_limits<std::uint64_t>::max();
  for (std::size_t i = 0; i < count; ++i) {
    GElf_Phdr header;
    if (::gelf_getphdr(elf_.get(), static_cast<int>(i), &header) == nullptr ||
        header.p_type != PT_LOAD) {
      continue;
    }
    extent_.begin = std::min(extent_.begin, header.p_vaddr & ~(header.p_align - 1));
    extent_.end = std::max(extent_.end, header.p_vaddr + header.p_memsz);
  }
  return extent_.begin < extent_.end;
}

Language ElfBinary::exported_interpreter() const {
  for (Elf_Scn* each = ::elf_nextscn(elf_.get(), nullptr); each != nullptr;
       each = ::elf_nextscn(elf_.get(), each)) {
    GElf_Shdr header;
    if (::gelf_getshdr(each, &header) == nullptr || header.sh_type != SHT_DYNSYM) continue;
    Elf_Data* data = ::elf_getdata(each, nullptr);
    GElf_Sym symbol;
    for (int i = 0; data != nullptr && ::gelf_getsym(data, i, &symbol) != nullptr; ++i) {
      const char* name = symbol.st_shndx == SHN_UNDEF
                             ? nullptr
                             : ::elf_strptr(elf_.get(), header.sh_link, symbol.st_name);
      const Language found = name == nullptr ? Language::native : language_of_export(name);
      if (found != Language::native) return found;
    }
  }
  return Language::native;
}

std::optional<ElfBinary> ElfBinary::open(const std::string& path, int fd) {
  ::elf_version(EV_CURRENT);
  Elf* elf = ::elf_begin(fd, ELF_C_READ_MMAP, nullptr);
  if (elf != nullptr) ::elf_cntl(elf, ELF_C_FDREAD);
  ElfBinary binary(path, elf);
  if (!binary.read_extent()) return std::nullopt;
  binary.extent_.interpreter = binary.exported_interpreter();
  return binary;
}

std::optional<ElfBinary> ElfBinary::vdso() {
  ::elf_version(EV_CURRENT);
  // NOLINTNEXTLINE(performance-no-int-to-ptr): so the auxiliary vector has it
  auto* image = reinterpret_cast<char*>(::getauxval(AT_SYSINFO_EHDR));
  if (image == nullptr) return std::nullopt;
  GElf_Ehdr header;
  std::memcpy(&header, image, sizeof header);
  ElfBinary binary(
      CodeReader::kVdso,
      ::elf_memory(image, header.e_shoff + std::size_t{header.e_shnum} * header.e_shentsize));
  if (!binary.read_extent()) return std::nullopt;
  return binary;
}

std::map<CounterField, std::size_t> ElfBinary::release_sites() const {
  std::size_t bytes = 0;
  const char* image = ::elf_rawfile(elf_.get(), &bytes);
  if (image == nullptr) return {};
  return cow::release_sites({reinterpret_cast<const std::uint8_t*>(image), bytes});
}

std::string ElfBinary::text_at(std::uint64_t address, std::size_t most) const {
  std::size_t headers = 0;
  std::size_t bytes = 0;
  const char* image = ::elf_rawfile(elf_.get(), &bytes);
  if (image == nullptr || ::elf_getphdrnum(elf_.get(), &headers) != 0) return {};
  for (std::size_t i = 0; i < headers; ++i) {
    GElf_Phdr header;
    if (::gelf_getphdr(elf_.get(), static_cast<int>(i), &header) == nullptr ||
        header.p_type != PT_LOAD || address < header.p_vaddr ||
        address - header.p_vaddr >= header.p_filesz || header.p_offset >= bytes) {
      continue;
    }
    const std::uint64_t offset = address - header.p_vaddr;
    if (offset >= bytes - header.p_offset) return {};
    const char* begin = image + header.p_offset + offset;
    const std::size_t size =
        ::strnlen(begin, std::min<std::size_t>(most + 1, bytes - header.p_offset - offset));
    return size > most ? std::string() : std::string(begin, size);
  }
  return {};
}

void ElfBinary::release_pages() const {
  if (path_ == CodeReader::kVdso) return;
  std::size_t bytes = 0;
  char* image = ::elf_rawfile(elf_.get(), &bytes);
  if (image != nullptr) ::madvise(image, bytes, MADV_DONTNEED);
}

}  // namespace cowshed::cow
