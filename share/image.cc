#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <random>
#include <span>
#include <string>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/share/arena_access.h>
#include <cowshed/share/arena_table.h>
#include <cowshed/share/code_id.h>
#include <cowshed/share/descriptor.h>
#include <cowshed/share/file_size_limit.h>
#include <cowshed/share/image.h>
#include <cowshed/share/image_format.h>
#include <cowshed/share/malloc_route.h>
#include <cowshed/share/registry_table.h>
#include <cowshed/share/stray_write.h>

namespace cowshed {

namespace {

namespace format = image_format;
using Bytes = std::span<const std::byte>;

constexpr std::size_t kStep = 64_MiB;  // between two calls of a Progress

template <class Call>
auto retry(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) {
    result = call();
  }
  return result;
}

// 0, or the errno of what failed.
int write_all(int fd, Bytes bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t written =
        retry([&] { return pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)); });
    if (written <= 0) {
      return written == 0 ? EIO : errno;
    }
    bytes = bytes.subspan(static_cast<std::size_t>(written));
    offset += static_cast<std::uint64_t>(written);
  }
  return 0;
}

tl::unexpected<Error> write_error(const std::string& who, int error) {
  return system_error(who + " cannot be written", error);
}

// How much there was, up to the end of the file.
Expected<std::size_t> read_all(int fd, std::span<std::byte> bytes, std::uint64_t offset,
                               const std::string& who) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = retry([&] {
      return pread(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    });
    if (got < 0) {
      return system_error(who + " cannot be read", errno);
    }
    if (got == 0) {
      break;
    }
    done += static_cast<std::size_t>(got);
  }
  return done;
}

std::uint64_t checksum_of_zeros() {
  static const std::uint64_t sum = format::checksum(std::vector<std::byte>(format::kBlock));
  return sum;
}

// A new file beside the one that it is to replace; gone unless it got there.
class Replacement {
 public:
  static Expected<Replacement> make(const std::filesystem::path& path, const std::string& who) {
    struct stat status{};
    if (lstat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISLNK(status.st_mode)) {
      return make_error(ErrorCode::invalid_argument,
                        who + " is not a regular file; choose another path");
    }
    std::array<char, 32> suffix{};
    std::snprintf(suffix.data(), suffix.size(), ".%08x.tmp", std::random_device{}());
    auto temporary = path;
    const std::string beginning = path.filename().string().substr(0, NAME_MAX - suffix.size());
    temporary.replace_filename("." + beginning + suffix.data());
    const int fd = retry([&] {
      return open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    });
    if (fd < 0) {
      return system_error(who + ": " + temporary.string() + " cannot be made", errno);
    }
    return Replacement(path, std::move(temporary), fd);
  }

  Replacement(Replacement&& other) noexcept
      : path_(std::move(other.path_)),
        temporary_(std::exchange(other.temporary_, {})),
        file_(std::move(other.file_)) {}
  Replacement& operator=(Replacement&&) = delete;
  ~Replacement() {
    if (!temporary_.empty()) {
      unlink(temporary_.c_str());
    }
  }

  int fd() const { return file_.get(); }

  // 0, or the errno, and `path` is as it was.
  int commit() {
    if (retry([&] { return fsync(fd()); }) != 0 ||
        std::rename(temporary_.c_str(), path_.c_str()) != 0) {
      return errno;
    }
    temporary_.clear();
    // The folder too, or a crash might lose the name.  The file is there whether that works or not.
    const auto folder = path_.has_parent_path() ? path_.parent_path() : ".";
    const Descriptor opened(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (opened) {
      (void)retry([&] { return fsync(opened.get()); });
    }
    return 0;
  }

 private:
  Replacement(std::filesystem::path path, std::filesystem::path temporary, int fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), file_(fd) {}

  std::filesystem::path path_;
  std::filesystem::path temporary_;  // empty once renamed
  Descriptor file_;
};

// Writes the pages of a block that are not zero, neighbours together.
int write_block(int fd, Bytes block, std::uint64_t offset) {
  static constexpr std::array<std::byte, format::kPage> kZeros{};
  const auto is_zero = [&](std::size_t at) {
    return std::memcmp(block.data() + at, kZeros.data(), kZeros.size()) == 0;
  };
  for (std::size_t at = 0; at < block.size();) {
    if (is_zero(at)) {
      at += format::kPage;
      continue;
    }
    const std::size_t first = at;
    while (at < block.size() && !is_zero(at)) {
      at += format::kPage;
    }
    if (const int error = write_all(fd, block.subspan(first, at - first), offset + first)) {
      return error;
    }
  }
  return 0;
}

// Also fills in the checksums of the blocks.
int write_payload(const ArenaCore& core, int fd, std::uint64_t payload,
                  std::vector<std::uint64_t>& sums, const Progress& progress) {
  const auto& holes = core.past().holes;
  auto hole = holes.begin();
  for (std::size_t offset = 0; offset < core.used(); offset += format::kBlock) {
    while (hole != holes.end() && hole->end <= offset) {
      ++hole;
    }
    std::uint64_t& sum = sums[offset / format::kBlock];
    if (hole != holes.end() && hole->begin <= offset) {
      sum = checksum_of_zeros();  // reading it would take memory
    } else {
      const Bytes block(reinterpret_cast<const std::byte*>(core.begin() + offset), format::kBlock);
      sum = format::checksum(block);
      if (const int error = write_block(fd, block, payload + offset)) {
        return error;
      }
    }
    const std::size_t done = offset + format::kBlock;
    if (progress && (done % kStep == 0 || done == core.used())) {
      progress(done, core.used());
    }
  }
  return 0;
}

template <std::size_t size>
void set_text(std::array<char, size>& field, std::string_view text) {
  text.copy(field.data(), size - 1);
}

std::vector<format::Object> objects_of(const ArenaCore& core) {
  std::vector<format::Object> result;
  for (const auto& object : registry::objects_in(core)) {
    if (object.name.empty()) {
      continue;
    }
    format::Object entry{};
    entry.offset = object.address - core.begin();
    entry.bytes = object.bytes;
    entry.alignment = object.alignment;
    entry.fingerprint = object.fingerprint;
    entry.type_size = object.type_size;
    entry.array = object.array ? 1 : 0;
    entry.spawn_safe = object.spawn_safe ? 1 : 0;
    set_text(entry.name, object.name);
    set_text(entry.type, object.type);
    result.push_back(entry);
  }
  return result;
}

template <class Entry>
format::Section append(std::vector<std::byte>& tables, const std::vector<Entry>& entries) {
  const Bytes bytes = std::as_bytes(std::span(entries));
  const format::Section section{format::kPage + tables.size(), entries.size(),
                                format::checksum(bytes)};
  tables.insert(tables.end(), bytes.begin(), bytes.end());
  return section;
}

// `sums` has the right size, and what it has to say later.
format::Header header_of(const ArenaCore& core, const std::vector<std::uint64_t>& sums,
                         std::vector<std::byte>& tables) {
  format::Header header{};
  header.magic = format::kMagic;
  header.byte_order = format::kByteOrder;
  header.version = format::kVersion;
  header.architecture = format::kMachineX86;
  header.page_bytes = format::kPage;
  header.mode = static_cast<std::uint32_t>(core.mode());
  header.base = core.begin();
  header.capacity = core.end() - core.begin();
  header.used = core.used();
  header.code = code_id();
  header.live_bytes = core.past().live_bytes;
  header.live_allocations = core.past().live_allocations;
  header.taken = core.past().taken;
  header.generation = core.generation();
  set_text(header.name, core.name());
  std::vector<format::Hole> holes;
  for (const Run& run : core.past().holes) {
    holes.push_back({run.begin, run.end});
  }
  header.objects = append(tables, objects_of(core));
  header.holes = append(tables, holes);
  header.blocks = append(tables, sums);
  const std::uint64_t end = format::kPage + tables.size();
  header.payload = (end + format::kBlock - 1) / format::kBlock * format::kBlock;
  return header;
}

Expected<void> write_image(const ArenaCore& core, int fd, const std::string& who,
                           const Progress& progress) {
  std::vector<std::uint64_t> sums(core.used() / format::kBlock);
  std::vector<std::byte> tables;
  format::Header header = header_of(core, sums, tables);
  if (auto sized = set_file_size(fd, header.payload + header.used, who); !sized) {
    return sized;
  }
  if (const int error = write_payload(core, fd, header.payload, sums, progress)) {
    return write_error(who, error);
  }
  tables.resize(header.blocks.offset - format::kPage);
  header.blocks = append(tables, sums);
  header.checksum = format::checksum(header);
  if (const int error = write_all(fd, tables, format::kPage)) {
    return write_error(who, error);
  }
  if (const int error = write_all(fd, std::as_bytes(std::span(&header, 1)), 0)) {
    return write_error(who, error);
  }
  return {};
}

struct Opened {
  Descriptor file;
  format::Header header;
  format::Tables tables;
};

std::string who_is(const std::filesystem::path& path) { return "image " + path.string(); }

Expected<Opened> open_checked(const std::filesystem::path& path) {
  const std::string who = who_is(path);
  // Without O_NONBLOCK a FIFO would wait for somebody to write.
  Descriptor file(
      retry([&] { return open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); }));
  struct stat status{};
  if (file.get() < 0 || fstat(file.get(), &status) != 0) {
    return system_error(who + " cannot be opened", errno);
  }
  if (!S_ISREG(status.st_mode)) {
    return make_error(ErrorCode::invalid_argument, who + " is not a regular file");
  }
  std::vector<std::byte> bytes(format::kPage);
  auto got = read_all(file.get(), bytes, 0, who);
  if (!got) {
    return tl::make_unexpected(std::move(got.error()));
  }
  const auto file_bytes = static_cast<std::uint64_t>(status.st_size);
  auto header = format::parse_header(Bytes(bytes).first(*got), file_bytes, who);
  if (!header) {
    return tl::make_unexpected(std::move(header.error()));
  }
  bytes.resize(header->blocks.offset - format::kPage);
  got = read_all(file.get(), bytes, format::kPage, who);
  if (!got) {
    return tl::make_unexpected(std::move(got.error()));
  }
  auto tables = format::parse_tables(*header, Bytes(bytes).first(*got), who);
  if (!tables) {
    return tl::make_unexpected(std::move(tables.error()));
  }
  return Opened{std::move(file), *header, std::move(*tables)};
}

// The mapping has all of the arena's range.
Expected<ArenaMapping> map_image(const Opened& image, FreezeMode mode, const std::string& who) {
  const auto& header = image.header;
  auto reserved = reserve_range(header.base, header.capacity, Holder::this_process, who,
                                "unmap it, or open the image in another process; an arena that "
                                "is made with another .address has its image there");
  if (!reserved) {
    return tl::make_unexpected(std::move(reserved.error()));
  }
  const ArenaMapping mapping = {image.file.get(), header.base, header.capacity};
  const int protection = mode == FreezeMode::strict ? PROT_READ : PROT_READ | PROT_WRITE;
  if (header.used > 0 &&
      mmap(mapping.address(), header.used, protection, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED,
           mapping.fd, static_cast<off_t>(header.payload)) == MAP_FAILED) {
    auto error = system_error(who + " cannot be mapped", errno);
    unmap_arena(mapping.begin, mapping.size);
    return error;
  }
  return mapping;
}

std::vector<registry::Object> published_objects(const Opened& image) {
  std::vector<registry::Object> result;
  for (const auto& entry : image.tables.objects) {
    result.push_back({entry.name.data(), entry.type.data(), entry.fingerprint, entry.type_size,
                      image.header.base + entry.offset, entry.bytes, entry.alignment,
                      entry.array != 0, entry.spawn_safe != 0, image.header.code});
  }
  return result;
}

// "'index', 'words'": what lies in the block.
std::string names_in(const std::vector<format::Object>& objects, std::uint64_t block) {
  std::string result;
  for (const auto& object : objects) {
    if (object.offset < block + format::kBlock && block < object.offset + object.bytes) {
      result += (result.empty() ? "'" : ", '") + std::string(object.name.data()) + "'";
    }
  }
  return result;
}

Expected<std::uint64_t> checksum_in_file(int fd, std::uint64_t offset,
                                         std::vector<std::byte>& buffer, const std::string& who) {
  const off_t data = lseek(fd, static_cast<off_t>(offset), SEEK_DATA);
  const bool hole =
      data < 0 ? errno == ENXIO : static_cast<std::uint64_t>(data) >= offset + buffer.size();
  if (hole) {
    return checksum_of_zeros();
  }
  auto got = read_all(fd, buffer, offset, who);
  if (!got) {
    return tl::make_unexpected(std::move(got.error()));
  }
  return format::checksum(Bytes(buffer).first(*got));
}

}  // namespace

Expected<void> save_image(const Arena& arena, const std::filesystem::path& path,
                          const Progress& progress) {
  const std::string who = who_is(path);
  if (ArenaAccess::core_of(arena) == nullptr) {
    return moved_from_error();
  }
  ArenaCore& core = *ArenaAccess::core_of(arena);
  const std::lock_guard lock(core.mutex());
  if (auto expected = core.expect_frozen(); !expected) {
    return expected;
  }
  auto replacement = Replacement::make(path, who);
  if (!replacement) {
    return tl::make_unexpected(std::move(replacement.error()));
  }
  if (auto written = write_image(core, replacement->fd(), who, progress); !written) {
    return written;
  }
  if (const int error = replacement->commit()) {
    return write_error(who, error);
  }
  return {};
}

Expected<Arena> open_image(const std::filesystem::path& path, const ImageOptions& options) {
  const OutsideScope outside;  // of another arena
  const std::string who = who_is(path);
  auto image = open_checked(path);
  if (!image) {
    return tl::make_unexpected(std::move(image.error()));
  }
  if (options.mode == FreezeMode::strict) {
    if (const int error = internal::install_stray_write_handler()) {
      return system_error("the SIGSEGV handler cannot be installed", error);
    }
  }
  auto core = take_vacant_core();
  if (!core) {
    return tl::make_unexpected(std::move(core.error()));
  }
  auto mapping = map_image(*image, options.mode, who);
  if (!mapping) {
    give_back_core(*core);
    return tl::make_unexpected(std::move(mapping.error()));
  }
  const auto& header = image->header;
  {
    const std::lock_guard lock((*core)->mutex());
    (*core)->adopt({.name = header.name.data(),
                    .begin = header.base,
                    .capacity = header.capacity,
                    .used = header.used,
                    .mode = options.mode,
                    .generation = static_cast<std::uint32_t>(header.generation),
                    .past = {.live_bytes = header.live_bytes,
                             .live_allocations = header.live_allocations,
                             .taken = header.taken,
                             .on_disk = header.taken,
                             .small = {},
                             .huge_page_error = 0,
                             .holes = image->tables.holes},
                    .segments = SegmentMap({{{0, header.used}, mapping->fd, header.payload}})});
    image->file.release();
  }
  Arena arena = ArenaAccess::arena_of(*core);
  show_arena(**core);
  if (options.publish) {
    auto published =
        registry::publish_foreign({{*core, published_objects(*image)}},
                                  "withdraw() it first, or open the image with .publish = false");
    if (!published) {
      return make_error(published.error().code, who + ": " + published.error().message);
    }
  }
  return arena;
}

Expected<void> verify_image(const std::filesystem::path& path, const Progress& progress) {
  const std::string who = who_is(path);
  const auto image = open_checked(path);
  if (!image) {
    return tl::make_unexpected(image.error());
  }
  const auto& header = image->header;
  const int fd = image->file.get();
  std::vector<std::uint64_t> sums(header.blocks.count);
  const auto got = read_all(fd, std::as_writable_bytes(std::span(sums)), header.blocks.offset, who);
  if (!got) {
    return tl::make_unexpected(got.error());
  }
  if (format::checksum(std::as_bytes(std::span(sums))) != header.blocks.checksum) {
    return make_error(ErrorCode::bad_image,
                      who + " has a damaged table of checksums; copy it again");
  }
  std::vector<std::byte> buffer(format::kBlock);
  for (std::uint64_t block = 0; block < header.used; block += format::kBlock) {
    const auto sum = checksum_in_file(fd, header.payload + block, buffer, who);
    if (!sum) {
      return tl::make_unexpected(sum.error());
    }
    if (*sum != sums[block / format::kBlock]) {
      const std::string names = names_in(image->tables.objects, block);
      return make_error(ErrorCode::bad_image,
                        who + " is damaged in the 2 MiB at offset " + std::to_string(block) +
                            " of the arena, in which there lies " +
                            (names.empty() ? "no published object itself" : names) +
                            "; copy it again");
    }
    const std::uint64_t done = block + format::kBlock;
    if (progress && (done % kStep == 0 || done == header.used)) {
      progress(done, header.used);
    }
  }
  return {};
}

}  // namespace cowshed
