#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <sys/auxv.h>
#include <sys/mman.h>

#include <cowshed/base/arch/arch.h>
#include <cowshed/base/try.h>
#include <cowshed/share/arena/mapping.h>
#include <cowshed/share/process/tree.h>

namespace cowshed::internal {
namespace {

// One line of /proc/self/maps.
struct MapsEntry {
  std::uintptr_t begin;
  std::uintptr_t end;
  std::string name;
};

std::string hex(std::uintptr_t value) {
  std::array<char, 24> text{};
  std::snprintf(text.data(), text.size(), "0x%zx", value);
  return text.data();
}

// arm64's kernels differ.  The kernel puts these bytes at the end of the program's stack, at the
// end of the addresses.
std::uintptr_t end_of_addresses() {
  return std::min(arch::kEndOfAddresses, std::bit_ceil(getauxval(AT_RANDOM)));
}

// Maps the file, or reserves the range if `fd` is -1.  Returns 0 or an errno.  The address is a
// hint, which the kernel takes if it is free.  MAP_FIXED_NOREPLACE would not do: ThreadSanitizer
// ends the process if it keeps the address for itself, but only moves a hint.
int map_at(int fd, std::uintptr_t address, std::size_t size) {
  void* wanted = reinterpret_cast<void*>(address);
  void* got =
      fd < 0 ? mmap(wanted, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
             : mmap(wanted, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (got == wanted) return 0;
  if (got == MAP_FAILED) return errno;
  munmap(got, size);
  return EEXIST;
}

// Returns {} if the file cannot be read.
std::vector<MapsEntry> read_maps() {
  std::vector<MapsEntry> result;
  std::ifstream file("/proc/self/maps");
  for (std::string line; std::getline(file, line);) {
    MapsEntry entry{};
    int name_at = 0;
    if (std::sscanf(line.c_str(), "%zx-%zx %*s %*s %*s %*s %n", &entry.begin, &entry.end,
                    &name_at) == 2) {
      entry.name = line.substr(static_cast<std::size_t>(name_at));
      result.push_back(std::move(entry));
    }
  }
  return result;
}

const MapsEntry* first_overlap(const std::vector<MapsEntry>& maps, std::uintptr_t begin,
                               std::uintptr_t end) {
  const auto found = std::find_if(maps.begin(), maps.end(), [=](const MapsEntry& entry) {
    return entry.begin < end && begin < entry.end;
  });
  return found == maps.end() ? nullptr : &*found;
}

tl::unexpected<Error> refusal(std::uintptr_t begin, std::uintptr_t end, int error,
                              const std::string& who, const std::string& advice) {
  const std::string where = who + ": " + hex(begin) + "-" + hex(end);
  const auto maps = read_maps();
  if (const MapsEntry* taken = first_overlap(maps, begin, end)) {
    const std::string what = taken->name.empty() ? "anonymous memory" : taken->name;
    return make_error(ErrorCode::address_taken, where + " is taken: " + what + " is mapped at " +
                                                    hex(taken->begin) + "-" + hex(taken->end) +
                                                    "; " + advice);
  }
  return system_error(where + " cannot be mapped by mmap", error);
}

Expected<std::uintptr_t> map_anywhere(int fd, std::size_t size, const std::string& who) {
  constexpr int kMostRounds = 2;  // the search may begin anywhere
  int error = ENOMEM;
  std::vector<MapsEntry> maps;
  for (std::size_t range = 0; range < process_tree::kRanges.size(); ++range) {
    std::uintptr_t before = 0;
    for (int rounds = 0; rounds <= kMostRounds;) {
      const std::uintptr_t start = addresses::take(range, size);
      if (start == 0) break;
      rounds += start <= before ? 1 : 0;
      before = start;
      error = map_at(fd, start, size);
      if (error == 0) return start;
      const MapsEntry* taken = first_overlap(maps, start, start + size);
      if (taken == nullptr) {
        maps = read_maps();
        taken = first_overlap(maps, start, start + size);
      }
      if (taken == nullptr) {  // not a clash: this range is refused altogether
        addresses::leave(start, size, false);
        break;
      }
      addresses::skip(range, start, size, taken->end);
    }
  }
  return system_error(who + ": no place for " + std::to_string(size) + " bytes of address space",
                      error);
}

}  // namespace

Expected<FileDescriptor> open_memfd(const std::string& name, std::size_t size) {
  FileDescriptor memfd = make_memfd("cowshed:" + name, Sealable::yes);
  if (!memfd) return system_error("arena '" + name + "': memfd_create", errno);
  TRY_VOID(set_file_size(memfd.get(), size, "arena '" + name + "'"));
  return memfd;
}

Expected<ArenaMapping> map_new_arena(const ArenaOptions& options) {
  const std::string who = "arena '" + options.name + "'";
  const auto refuse = [](const std::string& why) {
    return make_error(ErrorCode::invalid_argument, why);
  };
  const bool printable = std::all_of(options.name.begin(), options.name.end(), [](char c) {
    return std::isprint(static_cast<unsigned char>(c)) != 0;
  });
  if (options.name.empty() || options.name.size() > 63 || !printable)
    return refuse("an arena's .name has 1 to 63 printable characters");
  constexpr std::size_t kMost = std::size_t{1} << 45U;
  if (options.capacity == 0 || options.capacity > kMost)
    return refuse(who + ": .capacity is 1 byte to 32 TiB");
  if (options.address % kHugePage != 0) return refuse(who + ": .address is a multiple of 2 MiB");
  const std::size_t size = (options.capacity + kHugePage - 1) & ~(kHugePage - 1);
  const std::uintptr_t end = end_of_addresses();
  if (size > end || options.address > end - size) {
    return refuse(who + ": .address " + hex(options.address) + " with a capacity of " +
                  std::to_string(size) + " bytes ends after " + hex(end) +
                  ", where a process's addresses end; choose a lower one");
  }
  TRY(FileDescriptor fd, open_memfd(options.name, size));
  std::uintptr_t place = options.address;
  if (place == 0) {
    TRY(place, map_anywhere(fd.get(), size, who));
  } else {
    TRY_VOID(map_range(fd.get(), place, size, addresses::Holder::this_process, who,
                       "choose another .address"));
  }
  if (madvise(reinterpret_cast<void*>(place), size, MADV_DONTFORK) != 0) {
    auto error = system_error(who + ": madvise(MADV_DONTFORK)", errno);
    unmap_arena(place, size);
    return error;
  }
  return ArenaMapping{HeldFile::of(fd.release()), place, size};
}

Expected<void> map_range(int fd, std::uintptr_t begin, std::size_t size, addresses::Holder holder,
                         const std::string& who, const std::string& advice) {
  if (const int error = map_at(fd, begin, size))
    return refusal(begin, begin + size, error, who, advice);
  addresses::hold(begin, size, holder);
  return {};
}

void unmap_arena(std::uintptr_t begin, std::size_t size, bool known_elsewhere) {
  munmap(reinterpret_cast<void*>(begin), size);
  addresses::leave(begin, size, known_elsewhere);
}

}  // namespace cowshed::internal
