#include <algorithm>
#include <chrono>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include <cowshed/cow/sandbox/file_opener.h>
#include <cowshed/cow/sandbox/wire.h>

namespace cowshed::cow {
namespace {

// Finds a file without opening it, because a device or a FIFO would notice.
// A seccomp filter may refuse openat2(2), whose flags it cannot read, as systemd's
// RestrictSUIDSGID= does.
FileDescriptor locate(int folder, const std::string& path, std::uint64_t resolve, int flags = 0) {
  flags |= O_PATH | O_CLOEXEC;
  if (resolve == 0) return FileDescriptor(::openat(folder, path.c_str(), flags));
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags);
  how.resolve = resolve;
  return FileDescriptor(
      static_cast<int>(::syscall(SYS_openat2, folder, path.c_str(), &how, sizeof how)));
}

constexpr std::uint64_t kNoLinks = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;

FileDescriptor locate_folder(const std::string& path) {
  return locate(AT_FDCWD, path, 0, O_DIRECTORY);
}

// A sparse file that takes some KiB on disk can take gigabytes of memory.
bool is_sparse(const struct stat& file) {
  constexpr std::int64_t kSmallBytes = 16 << 20;
  constexpr std::int64_t kDiskBlockBytes = 512;
  constexpr std::int64_t kBestCompression = 16;
  return file.st_size > kSmallBytes &&
         file.st_size / kBestCompression > file.st_blocks * kDiskBlockBytes;
}

// Opens exactly the located file, even if its name is another file's now.  Refuses all but regular
// files.  Files that the kernel makes up, such as /proc/kmsg, have no size.
FileDescriptor open_located(const FileDescriptor& located) {
  struct stat file{};
  if (!located || ::fstat(located.get(), &file) != 0 || !S_ISREG(file.st_mode) ||
      file.st_size == 0 || is_sparse(file)) {
    return {};
  }
  return FileDescriptor(::open(fmt::format("/proc/self/fd/{}", located.get()).c_str(),
                               O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
}

// On overlayfs and btrfs, stat() returns other numbers than /proc/PID/maps.  So this also maps the
// file, and compares the numbers of its own mapping.
bool is_mapped_as(int fd, const Mapping& mapping) {
  struct stat file{};
  if (::fstat(fd, &file) != 0) return false;
  if (file.st_dev == mapping.device && file.st_ino == mapping.inode) return true;
  void* mapped = ::mmap(nullptr, 1, PROT_READ, MAP_PRIVATE, fd, 0);
  if (mapped == MAP_FAILED) return false;
  const auto begin = reinterpret_cast<std::uintptr_t>(mapped);
  bool is_same = false;
  for (const Mapping& own : ProcFiles().maps(::getpid()).value_or(std::vector<Mapping>())) {
    if (begin < own.begin || begin >= own.end) continue;
    is_same = own.device == mapping.device && own.inode == mapping.inode;
  }
  ::munmap(mapped, 1);
  return is_same;
}

FileDescriptor open_if_mapped_as(const Mapping& mapping, const FileDescriptor& located) {
  FileDescriptor file = open_located(located);
  return file && is_mapped_as(file.get(), mapping) ? std::move(file) : FileDescriptor();
}

// Returns the root folder of the process; "/" after its end.
FileDescriptor root_of(const ProcFiles& proc, pid_t pid) {
  FileDescriptor root = locate_folder(proc.path(pid, "root"));
  return root ? std::move(root) : locate_folder("/");
}

FileDescriptor open_itself(const ProcFiles& proc, const FileRequest& request) {
  const Mapping& mapping = request.mapping;
  const FileDescriptor shown = locate(
      AT_FDCWD,
      proc.path(request.pid, fmt::format("map_files/{:x}-{:x}", mapping.begin, mapping.end)), 0);
  if (FileDescriptor file = open_if_mapped_as(mapping, shown)) return file;
  const std::string path(mapping.file_path());
  for (const FileDescriptor& root : {root_of(proc, request.pid), locate_folder("/")}) {
    const FileDescriptor named = locate(root.get(), path, RESOLVE_IN_ROOT | kNoLinks);
    if (FileDescriptor file = open_if_mapped_as(mapping, named)) return file;
  }
  return {};
}

bool is_file_name(const std::string& name) {
  constexpr std::size_t kLongest = 255;
  return !name.empty() && name.size() <= kLongest && name != "." && name != ".." &&
         name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
}

bool is_build_id(const std::string& name) {
  constexpr std::size_t kShortest = 4;
  return is_file_name(name) && name.size() >= kShortest &&
         std::ranges::all_of(name, [](char digit) {
           return (digit >= '0' && digit <= '9') || (digit >= 'a' && digit <= 'f');
         });
}

FileDescriptor open_system_debug_file(const std::string& path) {
  const FileDescriptor folder = locate_folder("/usr/lib/debug");
  return folder ? open_located(locate(folder.get(), path, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS))
                : FileDescriptor();
}

FileDescriptor open_debug_file(const ProcFiles& proc, const FileRequest& request) {
  if (request.kind == FileKind::build_id) {
    if (!is_build_id(request.name)) return {};
    return open_system_debug_file(
        fmt::format(".build-id/{}/{}.debug", request.name.substr(0, 2), request.name.substr(2)));
  }
  const std::string binary(request.mapping.file_path());
  if (!is_file_name(request.name) || !binary.starts_with('/')) return {};
  const std::string folder = binary.substr(1, binary.rfind('/'));
  if (request.kind == FileKind::system_folder) return open_system_debug_file(folder + request.name);
  const std::string below = request.kind == FileKind::debug_folder ? ".debug/" : "";
  const FileDescriptor root = root_of(proc, request.pid);
  return open_located(
      locate(root.get(), folder + below + request.name, RESOLVE_IN_ROOT | kNoLinks));
}

FileDescriptor open_perf_map(const ProcFiles& proc, const FileRequest& request) {
  const pid_t own_pid = proc.own_pid(request.pid);
  const FileDescriptor root = root_of(proc, request.pid);
  const FileDescriptor map =
      locate(root.get(), fmt::format("tmp/perf-{}.map", own_pid == 0 ? request.pid : own_pid),
             RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS, O_NOFOLLOW);
  struct stat file{};
  if (!map || ::fstat(map.get(), &file) != 0) return {};
  // Any user can put a file there for a future PID.
  const bool is_believed =
      file.st_uid == 0 || file.st_uid == ::geteuid() || file.st_uid == request.owner;
  return is_believed ? open_located(map) : FileDescriptor();
}

constexpr std::chrono::seconds kMostOpenTime{20};
constexpr std::chrono::seconds kMostOpenAsleep{2};

std::string to_bytes(const FileRequest& request) {
  WireWriter wire;
  wire.number(request.kind).number(request.pid).number(request.owner);
  wire.number(request.mapping.begin).number(request.mapping.end);
  wire.number(request.mapping.device).number(request.mapping.inode);
  wire.text(request.mapping.path).text(request.name);
  return wire.bytes();
}

FileRequest from_bytes(std::string_view bytes) {
  WireReader wire(bytes);
  FileRequest request;
  request.kind = wire.number<FileKind>();
  request.pid = wire.number<pid_t>();
  request.owner = wire.number<std::uint32_t>();
  request.mapping.begin = wire.number<std::uint64_t>();
  request.mapping.end = wire.number<std::uint64_t>();
  request.mapping.device = wire.number<dev_t>();
  request.mapping.inode = wire.number<std::uint64_t>();
  request.mapping.path = wire.text();
  request.name = wire.text();
  return request;
}

void serve(const ProcFiles& proc, const HelperSocket& socket) {
  while (const auto message = socket.receive()) {
    const FileDescriptor file = open_requested(proc, from_bytes(message->bytes));
    if (!socket.send("!", file.get())) return;
  }
}

}  // namespace

FileDescriptor open_requested(const ProcFiles& proc, const FileRequest& request) {
  switch (request.kind) {
    case FileKind::itself: return open_itself(proc, request);
    case FileKind::perf_map: return open_perf_map(proc, request);
    default: return open_debug_file(proc, request);
  }
}

FileDescriptor OpenerProcess::open(const FileRequest& request) {
  if (hung_ >= kMostHung || hung_devices_.contains(request.mapping.device)) return {};
  if (!process_) {
    process_ = HelperProcess::start("cowtop-files", HelperProcess::Rights::as_ours,
                                    [this](const HelperSocket& socket) { serve(proc_, socket); });
  }
  if (!process_) return {};
  const bool sent = process_->socket().send(to_bytes(request));
  if (auto reply = sent ? process_->receive(kMostOpenTime, kMostOpenAsleep) : std::nullopt)
    return std::move(reply->file);
  process_.reset();
  ++hung_;
  if (request.mapping.device != 0) hung_devices_.insert(request.mapping.device);
  return {};
}

}  // namespace cowshed::cow
