#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <mutex>
#include <span>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/base/try.h>
#include <cowshed/base/type_id.h>
#include <cowshed/share/arena/access.h>
#include <cowshed/share/arena_image.h>
#include <cowshed/share/export/image_format.h>
#include <cowshed/share/export/parcel.h>
#include <cowshed/share/export/parcel_format.h>
#include <cowshed/share/jemalloc/outside_scope.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/share/os/random.h>
#include <cowshed/share/process/tree.h>
#include <cowshed/share/wire/content.h>

namespace cowshed {

using namespace internal;

namespace {

using image_format::Header;
using ByteSpan = std::span<const std::byte>;

std::string who_is(const std::filesystem::path& path) { return "image " + path.string(); }

tl::unexpected<Error> write_error(const std::string& who, int error) {
  return system_error(who + " cannot be written", error);
}

// Returns the number of bytes read, which is smaller at the end of the file; less than 0, with
// errno, after an error.
ssize_t read_all(int fd, std::span<std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got = TEMP_FAILURE_RETRY(
        pread(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done)));
    if (got < 0) return got;
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return static_cast<ssize_t>(done);
}

// Calls `write` with the descriptor of a new file beside `path`, and renames the file to `path`.
template <class Write>
Expected<void> replace_file(const std::filesystem::path& path, const std::string& who,
                            Write write) {
  struct stat status{};
  if (lstat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISLNK(status.st_mode)) {
    return make_error(ErrorCode::invalid_argument,
                      who + " is not a regular file; choose another path");
  }
  TRY(const std::uint32_t drawn, random_number(who));
  std::array<char, 32> suffix{};
  std::snprintf(suffix.data(), suffix.size(), ".%08x.tmp", drawn);
  const std::string beginning = path.filename().string().substr(0, NAME_MAX - suffix.size());
  auto temporary = path;
  temporary.replace_filename("." + beginning + suffix.data());
  const FileDescriptor file(static_cast<int>(TEMP_FAILURE_RETRY(
      open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644))));
  if (!file) return system_error(who + ": " + temporary.string() + " cannot be made", errno);
  Expected<void> written = write(file.get());
  if (written && (TEMP_FAILURE_RETRY(fsync(file.get())) != 0 ||
                  std::rename(temporary.c_str(), path.c_str()) != 0)) {
    written = write_error(who, errno);
  }
  if (!written) {
    unlink(temporary.c_str());
    return written;
  }
  // Without this a crash might lose the new name.  An error leaves the file in place.
  const auto folder = path.has_parent_path() ? path.parent_path() : ".";
  const FileDescriptor opened(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  (void)TEMP_FAILURE_RETRY(fsync(opened.get()));
  return {};
}

// Writes the pages that are not zero, each run of them by one call.
int write_pages(int fd, ByteSpan bytes, std::uint64_t offset) {
  static constexpr std::array<std::byte, arch::kPage> kZeros{};
  const auto is_zero = [&](std::size_t at) {
    return std::memcmp(bytes.data() + at, kZeros.data(), kZeros.size()) == 0;
  };
  for (std::size_t at = 0; at < bytes.size(); at += arch::kPage) {
    const std::size_t first = at;
    while (at < bytes.size() && !is_zero(at)) at += arch::kPage;
    if (const int error = write_all(fd, bytes.data() + first, at - first, offset + first))
      return error;
  }
  return 0;
}

Expected<void> write_payload(const ArenaCore& core, int fd, std::uint64_t payload,
                             const std::string& who, const Progress& progress) {
  // Skips the holes, because reading one would allocate pages.
  for (const Run& run : without({{0, core.used()}}, core.past().holes)) {
    for (std::size_t at = run.begin; at < run.end; at += kCollapseStep) {
      const std::size_t end = std::min(at + kCollapseStep, run.end);
      TRY_VOID(populate(core.begin() + at, end - at, who));
      const ByteSpan bytes(reinterpret_cast<const std::byte*>(core.begin() + at), end - at);
      if (const int error = write_pages(fd, bytes, payload + at)) return write_error(who, error);
      if (progress && end < core.used()) progress(end, core.used());
    }
  }
  if (progress && core.used() > 0) progress(core.used(), core.used());
  return {};
}

// Returns the header's page and the parcel.
std::vector<std::byte> make_head(ArenaCore& core) {
  parcel_format::Contents contents{process_tree::id(), process_tree::last_generation(), {}, {}};
  contents.arenas.push_back({core.describe(), registry::objects_in(core)});
  auto& [arena, objects] = contents.arenas.front();
  arena.segments.clear();
  if (arena.used > 0) arena.segments.push_back({.run = {0, arena.used}, .file = {.fd = 0}});
  std::erase_if(objects, [](const auto& object) { return object.name.empty(); });
  Encoder to = Encoder::in_memory();
  parcel_format::write(to, contents);
  Content parcel = to.finish();
  std::vector<std::byte> head(arch::kPage);
  head.insert(head.end(), parcel.view().begin(), parcel.view().end());
  Header header{.parcel_bytes = parcel.view().size(), .base = core.begin()};
  header.payload = (head.size() + kHugePage - 1) / kHugePage * kHugePage;
  std::memcpy(head.data(), &header, sizeof header);
  header.checksum = image_format::checksum_of(head);
  std::memcpy(head.data(), &header, sizeof header);
  return head;
}

tl::unexpected<Error> bad(const std::string& who, const std::string& what) {
  return make_error(ErrorCode::bad_image,
                    who + " " + what + "; make it again with save_image(), or copy it again");
}

struct Image {
  FileDescriptor file;
  parcel_format::Contents::Arena arena;
};

Expected<Image> read_image(const std::filesystem::path& path, const std::string& who) {
  // O_NONBLOCK: opening a FIFO would wait for a writer.
  Image image;
  image.file = FileDescriptor(static_cast<int>(
      TEMP_FAILURE_RETRY(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK))));
  struct stat status{};
  if (!image.file || fstat(image.file.get(), &status) != 0)
    return system_error(who + " cannot be opened", errno);
  if (!S_ISREG(status.st_mode))
    return make_error(ErrorCode::invalid_argument, who + " is not a regular file");
  const auto file_bytes = static_cast<std::uint64_t>(status.st_size);
  std::vector<std::byte> head(arch::kPage);
  Header header;
  for (const bool whole : {false, true}) {
    const ssize_t got = read_all(image.file.get(), head);
    if (got < 0) return system_error(who + " cannot be read", errno);
    std::memcpy(&header, head.data(), sizeof header);
    if (static_cast<std::size_t>(got) != head.size() || header.magic != image_format::kMagic)
      return bad(who, "is not an image");
    if (header.version != image_format::kVersion) {
      return make_error(ErrorCode::unsupported,
                        who + " has version " + std::to_string(header.version) +
                            ", this program reads version " +
                            std::to_string(image_format::kVersion) + "; save it again");
    }
    if (header.payload % kHugePage != 0 || header.payload < arch::kPage ||
        header.parcel_bytes > std::min(header.payload - arch::kPage, kMostParcel)) {
      return bad(who, "has a damaged header");
    }
    if (header.payload > file_bytes) return bad(who, "is truncated");
    if (!whole) head.resize(arch::kPage + header.parcel_bytes);
  }
  if (image_format::checksum_of(head) != header.checksum)
    return bad(who, "is damaged (its checksum is wrong)");
  try {
    Decoder from(ByteSpan(head).subspan(arch::kPage));
    auto contents = parcel_format::read(from);
    image.arena = std::move(contents.arenas.at(0));
  } catch (const std::exception&) {
    return bad(who, "contradicts itself");
  }
  auto& arena = image.arena.description;
  if (arena.begin != header.base || arena.segments.size() > 1)
    return bad(who, "contradicts itself");
  if (arena.used > file_bytes - header.payload) return bad(who, "is truncated");
  for (Segment& segment : arena.segments) segment.payload = header.payload;
  return image;
}

}  // namespace

std::uint64_t image_format::checksum_of(std::span<const std::byte> head) {
  constexpr std::size_t kAt = offsetof(Header, checksum);
  constexpr std::array<std::byte, sizeof(Header::checksum)> kZeros{};
  std::uint64_t hash = hash_bytes(head.data(), kAt, kHashOfNothing);
  hash = hash_bytes(kZeros.data(), kZeros.size(), hash);
  const ByteSpan rest = head.subspan(kAt + kZeros.size());
  return hash_bytes(rest.data(), rest.size(), hash);
}

bool image_format::is_image(int fd, std::uint64_t base, std::uint64_t payload) {
  Header header;
  return pread(fd, &header, sizeof header, 0) == sizeof header && header.magic == kMagic &&
         header.version == kVersion && header.base == base && header.payload == payload;
}

Expected<std::vector<std::string>> save_image(const Arena& arena, const std::filesystem::path& path,
                                              const Progress& progress) {
  const std::string who = who_is(path);
  if (ArenaAccess::core_of(arena) == nullptr) return moved_from_error();
  ArenaCore& core = *ArenaAccess::core_of(arena);
  const std::lock_guard lock(core.mutex());
  TRY_VOID(core.expect_frozen());
  const auto write = [&](int fd) -> Expected<void> {
    const auto head = make_head(core);
    const std::uint64_t payload = (head.size() + kHugePage - 1) / kHugePage * kHugePage;
    TRY_VOID(set_file_size(fd, payload + core.used(), who));
    TRY_VOID(write_payload(core, fd, payload, who, progress));
    if (const int error = write_all(fd, head.data(), head.size(), 0))
      return write_error(who, error);
    return {};
  };
  TRY_VOID(replace_file(path, who, write));
  std::vector<std::string> unsafe;
  for (registry::Object& object : registry::objects_in(core))
    if (!object.spawn_safe && !object.name.empty()) unsafe.push_back(std::move(object.name));
  return unsafe;
}

Expected<Arena> open_image(const std::filesystem::path& path, const ImageOptions& options) {
  const OutsideScope outside;  // the caller may be inside another arena's scope
  const std::string who = who_is(path);
  TRY(Image image, read_image(path, who));
  auto& [description, objects] = image.arena;
  description.mode = options.mode;
  description.past.on_disk = description.past.taken;
  description.past.small.clear();
  description.past.huge_page_error = 0;
  std::vector<FileDescriptor> files;  // none if the arena is empty: nothing would own it
  if (!description.segments.empty()) files.push_back(std::move(image.file));
  TRY(Arena arena,
      adopt_arena(std::move(description), std::move(files), addresses::Holder::this_process, who));
  if (options.publish) {
    for (registry::Object& object : objects)
      object.generation = 0;  // it becomes a publication of this process
    auto published =
        registry::publish_foreign({{ArenaAccess::core_of(arena), std::move(objects)}},
                                  "withdraw() it first, or open the image with .publish = false");
    if (!published)
      return make_error(published.error().code, who + ": " + published.error().message);
  }
  return arena;
}

}  // namespace cowshed
