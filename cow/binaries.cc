#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <gelf.h>
#include <libelf.h>
#include <limits>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <cowshed/cow/binaries.h>

namespace cowshed::cow {
namespace {

// A descriptor of the regular file, -1 if there is none.  Only that of a given inode, unless 0.
int open_file(const std::string& path, std::uint64_t inode) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return -1;
  struct stat status{};
  if (::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
      (inode == 0 || status.st_ino == inode)) {
    return fd;
  }
  ::close(fd);
  return -1;
}

void read_extent(Binary& binary) {
  std::size_t count = 0;
  if (::elf_getphdrnum(binary.elf.get(), &count) != 0) return;
  binary.begin = std::numeric_limits<std::uint64_t>::max();
  for (std::size_t i = 0; i < count; ++i) {
    GElf_Phdr header;
    if (::gelf_getphdr(binary.elf.get(), static_cast<int>(i), &header) == nullptr ||
        header.p_type != PT_LOAD) {
      continue;
    }
    binary.begin = std::min(binary.begin, header.p_vaddr & ~(header.p_align - 1));
    binary.end = std::max(binary.end, header.p_vaddr + header.p_memsz);
  }
}

void adopt(Binary& binary, Elf* elf) {
  binary.elf.reset(elf);
  if (elf == nullptr) return;
  read_extent(binary);
  if (binary.begin >= binary.end) binary.elf.reset();
}

constexpr const char* kVdso = "[vdso]";

}  // namespace

void Binary::End::operator()(Elf* open) const { ::elf_end(open); }

void Binary::release_pages() const {
  if (!elf || inode == 0) return;  // the vDSO is no file
  std::size_t bytes = 0;
  char* image = ::elf_rawfile(elf.get(), &bytes);
  if (image != nullptr) ::madvise(image, bytes, MADV_DONTNEED);
}

Binaries::Binaries(ProcFiles proc) : proc_(std::move(proc)) { ::elf_version(EV_CURRENT); }

const Binary* Binaries::open(const Mapping& mapping, pid_t pid) {
  const std::string path(mapping.file_path());
  const auto [entry, is_new] = binaries_.try_emplace({path, mapping.inode});
  Binary& binary = entry->second;
  if (!is_new) return &binary;
  binary.path = path;
  binary.inode = mapping.inode;
  int fd = open_file(path, mapping.inode);
  if (fd < 0) fd = open_file(proc_.path(pid, "root") + path, mapping.inode);
  if (fd < 0) {
    fd = open_file(proc_.path(pid, fmt::format("map_files/{:x}-{:x}", mapping.begin, mapping.end)),
                   0);
  }
  if (fd < 0) return &binary;
  Elf* elf = ::elf_begin(fd, ELF_C_READ_MMAP, nullptr);
  if (elf != nullptr) ::elf_cntl(elf, ELF_C_FDREAD);
  ::close(fd);
  adopt(binary, elf);
  return &binary;
}

const Binary* Binaries::vdso() {
  const auto [entry, is_new] = binaries_.try_emplace({kVdso, 0});
  Binary& binary = entry->second;
  if (!is_new) return &binary;
  binary.path = kVdso;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): so the auxiliary vector has it
  auto* image = reinterpret_cast<char*>(::getauxval(AT_SYSINFO_EHDR));
  if (image == nullptr) return &binary;
  GElf_Ehdr header;
  std::memcpy(&header, image, sizeof header);
  adopt(binary,
        ::elf_memory(image, header.e_shoff + std::size_t{header.e_shnum} * header.e_shentsize));
  return &binary;
}

const Binary* Binaries::perf_map(pid_t pid) {
  return generated(fmt::format("/tmp/perf-{}.map", pid));
}

const Binary* Binaries::generated(const std::string& perf_map) {
  Binary& binary = binaries_.try_emplace({perf_map, 0}).first->second;
  binary.path = perf_map;
  binary.is_generated = true;
  return &binary;
}

}  // namespace cowshed::cow
