#include <cerrno>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <filesystem>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/io/output_file.h>

namespace cowshed::cowtop {
namespace {

// All 0 if the descriptor is closed.
struct stat status_of(int file) {
  struct stat status{};
  ::fstat(file, &status);
  return status;
}

bool everybody_may_write(const struct stat& folder) { return (folder.st_mode & S_IWOTH) != 0; }

// Whether it is our user, or root.  In a user namespace the machine's root looks like another user:
// the owner of "/".
bool is_trusted(uid_t owner) {
  struct stat root{};
  return owner == ::geteuid() || owner == 0 || (::stat("/", &root) == 0 && owner == root.st_uid);
}

// Whether a user who may not do what we may do can put a trap there.  An ordinary user trusts the
// owner and the group of a folder; for root they are others.
bool others_may_write(const struct stat& folder) {
  const bool is_private = is_trusted(folder.st_uid) && (folder.st_mode & S_IWGRP) == 0;
  return everybody_may_write(folder) || (::geteuid() == 0 && !is_private);
}

FileDescriptor open_in(const FileDescriptor& folder, const std::string& name, int flags) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  how.mode = (flags & O_CREAT) != 0 ? 0666 : 0;
  how.resolve = others_may_write(status_of(folder.get())) ? RESOLVE_NO_SYMLINKS : 0;
  return FileDescriptor(
      static_cast<int>(::syscall(SYS_openat2, folder.get(), name.c_str(), &how, sizeof how)));
}

tl::unexpected<Error> planted(const std::string& path, const std::string& what) {
  return make_error(ErrorCode::permission_denied,
                    path + ": " + what +
                        " in a folder that others may write to; remove it, or name another file");
}

tl::unexpected<Error> cannot_open(const std::string& path, const FileDescriptor& folder,
                                  const std::string& name) {
  const int error = errno;
  // RESOLVE_NO_SYMLINKS gives ELOOP, fs.protected_symlinks EACCES (proc_sys_fs(5)).
  struct stat entry{};
  const bool is_link = ::fstatat(folder.get(), name.c_str(), &entry, AT_SYMLINK_NOFOLLOW) == 0 &&
                       S_ISLNK(entry.st_mode);
  if (is_link && (error == ELOOP || error == EACCES) && others_may_write(status_of(folder.get())))
    return planted(path, name + " is a symbolic link");
  return system_error("cannot write " + path, error);
}

// Creates the file if it is not there, and waits until a FIFO has a reader.  Errors:
// permission_denied for a trap (OutputFile::open()); system_call.
Expected<FileDescriptor> open_for_writing(const std::string& path) {
  const std::filesystem::path way(path);
  const int as_folder = O_PATH | O_DIRECTORY;
  FileDescriptor folder(::open(way.is_absolute() ? "/" : ".", as_folder | O_CLOEXEC));
  for (const std::string name : way.relative_path().parent_path()) {
    FileDescriptor next = open_in(folder, name, as_folder);
    if (!next) return cannot_open(path, folder, name);
    folder = std::move(next);
  }
  const std::string name = way.has_filename() ? way.filename().string() : ".";  // a folder: EISDIR
  // O_NONBLOCK: whose FIFO it is must be known before we wait for its reader.
  FileDescriptor file = open_in(folder, name, O_WRONLY | O_CREAT | O_NONBLOCK | O_NOCTTY);
  const bool must_wait = !file && errno == ENXIO;
  if (must_wait) file = open_in(folder, name, O_PATH);
  if (!file) return cannot_open(path, folder, name);
  const struct stat where = status_of(folder.get());
  const struct stat what = status_of(file.get());
  if (others_may_write(where)) {
    const bool is_theirs = what.st_uid != ::geteuid();
    if (is_theirs && (everybody_may_write(where) || !S_ISREG(what.st_mode)))
      return planted(path, "somebody else's file");
    if (what.st_nlink > 1) return planted(path, "a file with another name elsewhere");
  }
  if (!must_wait) {
    ::fcntl(file.get(), F_SETFL, ::fcntl(file.get(), F_GETFL) & ~O_NONBLOCK);
    return file;
  }
  // The same file, whatever has the name by now.
  const std::string same = "/proc/self/fd/" + std::to_string(file.get());
  FileDescriptor writable(::open(same.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY));
  if (!writable) return system_error("cannot write " + path, errno);
  return writable;
}

bool is_same_file(const struct stat& one, const struct stat& other) {
  return S_ISREG(one.st_mode) && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

bool is_same_file(int fd, const std::string& path) {
  struct stat other{};
  return ::stat(path.c_str(), &other) == 0 && is_same_file(status_of(fd), other);
}

// While it lives, a write beyond the limit of a file's size (setrlimit(2)) fails and does not end
// us.
class FileSizeSignalIgnored {
 public:
  FileSizeSignalIgnored() : before_(std::signal(SIGXFSZ, SIG_IGN)) {}
  FileSizeSignalIgnored(const FileSizeSignalIgnored&) = delete;
  FileSizeSignalIgnored& operator=(const FileSizeSignalIgnored&) = delete;
  ~FileSizeSignalIgnored() { std::signal(SIGXFSZ, before_); }

 private:
  void (*before_)(int);
};

}  // namespace

Expected<OutputFile> OutputFile::open(const std::string& path,
                                      const std::vector<std::string>& others) {
  if (path == "-")
    return wrong("-: write /dev/stdout for standard output, ./- for a file of that name");
  // Where standard output was closed, main() has opened O_PATH in its place.
  const int flags = ::fcntl(STDOUT_FILENO, F_GETFL);
  if (path.empty() && (flags < 0 || (flags & O_PATH) != 0))
    return system_error("cannot write to standard output", EBADF);
  OutputFile file("standard output");
  if (!path.empty()) {
    TRY(auto opened, open_for_writing(path));
    file.path_ = path;
    // The same file as standard output: two positions would overwrite each other's text.
    if (!is_same_file(opened.get(), "/dev/stdout")) file.file_ = std::move(opened);
  }
  for (const std::string& other : others) {
    if (!is_same_file(file.fd(), other)) continue;
    return wrong(file.path_ + ": is the same file as " + other +
                 ", which would be lost; name another file");
  }
  return file;
}

int OutputFile::fd() const { return file_ ? file_.get() : STDOUT_FILENO; }

bool OutputFile::cut(std::size_t size) const {
  return file_ && ::ftruncate(file_.get(), static_cast<off_t>(size)) == 0 &&
         ::lseek(file_.get(), static_cast<off_t>(size), SEEK_SET) >= 0;
}

bool OutputFile::holds_something() const {
  const struct stat status = status_of(file_.get());
  return file_ && S_ISREG(status.st_mode) && status.st_size > 0;
}

Expected<void> OutputFile::lock() const {
  if (kind() != Kind::file) return {};  // several may write to a device or a pipe
  if (::flock(fd(), LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return {};
  return make_error(ErrorCode::in_use,
                    path_ + ": another cowtop is writing to it; name another file");
}

OutputFile::Kind OutputFile::kind() const {
  const struct stat status = status_of(fd());
  if (status.st_mode == 0 || S_ISREG(status.st_mode) || S_ISBLK(status.st_mode)) return Kind::file;
  return S_ISCHR(status.st_mode) ? Kind::device : Kind::stream;
}

bool OutputFile::is_also(int descriptor) const {
  return is_same_file(status_of(fd()), status_of(descriptor));
}

void OutputFile::clear() {
  if (cut(0)) size_ = 0;
}

Expected<void> OutputFile::append(std::string_view bytes) {
  const FileSizeSignalIgnored ignored;
  const std::size_t before = size_;
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd(), bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      auto error = system_error("cannot write to " + path_, errno);
      if (cut(before)) size_ = before;
      return error;
    }
    size_ += static_cast<std::size_t>(written);
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

Expected<void> OutputFile::write_report(std::string_view text) {
  clear();
  auto written = append(text);
  // A reader would take a part for the whole.
  if (!written && cut(0)) written.error().message += "; it is left empty";
  return written;
}

FileDescriptor nameless_file() {
  const int flags = O_RDWR | O_APPEND | O_CLOEXEC;
  FileDescriptor file(::open(P_tmpdir, O_TMPFILE | O_EXCL | flags, 0600));
  if (file) return file;
  file = FileDescriptor(::memfd_create("output", MFD_CLOEXEC));
  if (file) ::fcntl(file.get(), F_SETFL, O_APPEND);
  return file;
}

}  // namespace cowshed::cowtop
