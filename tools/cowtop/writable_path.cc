#include <cerrno>
#include <fcntl.h>
#include <filesystem>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <utility>

#include <cowshed/tools/cowtop/writable_path.h>

namespace cowshed::cowtop {
namespace {

struct stat status_of(const Descriptor& file) {
  struct stat status{};
  ::fstat(file.get(), &status);
  return status;
}

bool everybody_may_write(const struct stat& folder) { return (folder.st_mode & S_IWOTH) != 0; }

// Ours, root's, or theirs who own all: in a user namespace the root outside is nobody.
bool is_trusted(uid_t owner) {
  struct stat root{};
  return owner == ::geteuid() || owner == 0 || (::stat("/", &root) == 0 && owner == root.st_uid);
}

bool others_may_write(const struct stat& folder) {
  const bool is_ours = is_trusted(folder.st_uid) && (folder.st_mode & S_IWGRP) == 0;
  return everybody_may_write(folder) || (::geteuid() == 0 && !is_ours);
}

Descriptor open_in(const Descriptor& folder, const std::string& name, int flags) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  how.mode = (flags & O_CREAT) != 0 ? 0666 : 0;
  how.resolve = others_may_write(status_of(folder)) ? RESOLVE_NO_SYMLINKS : 0;
  return Descriptor(
      static_cast<int>(::syscall(SYS_openat2, folder.get(), name.c_str(), &how, sizeof how)));
}

tl::unexpected<Error> planted(const std::string& path, const std::string& what) {
  return make_error(ErrorCode::permission_denied,
                    path + ": " + what +
                        " in a folder that others may write to; remove it, or name another file");
}

tl::unexpected<Error> cannot_open(const std::string& path, const Descriptor& folder,
                                  const std::string& name) {
  const int error = errno;
  const bool is_link = error == ELOOP && others_may_write(status_of(folder));
  return is_link ? planted(path, name + " is a symbolic link")
                 : system_error("cannot write " + path, error);
}

}  // namespace

Expected<Descriptor> open_for_writing(const std::string& path) {
  const std::filesystem::path way(path);
  const int kFolder = O_PATH | O_DIRECTORY;
  Descriptor folder(::open(way.is_absolute() ? "/" : ".", kFolder | O_CLOEXEC));
  for (const std::string name : way.relative_path().parent_path()) {
    Descriptor next = open_in(folder, name, kFolder);
    if (!next) return cannot_open(path, folder, name);
    folder = std::move(next);
  }
  const std::string name = way.has_filename() ? way.filename().string() : ".";
  // Nobody's FIFO is waited for before it is known whose it is.
  Descriptor file = open_in(folder, name, O_WRONLY | O_CREAT | O_NONBLOCK | O_NOCTTY);
  const bool has_no_reader = !file && errno == ENXIO;
  if (has_no_reader) file = open_in(folder, name, O_PATH);
  if (!file) return cannot_open(path, folder, name);
  const struct stat where = status_of(folder);
  const struct stat what = status_of(file);
  if (others_may_write(where)) {
    const bool is_theirs = what.st_uid != ::geteuid();
    if (is_theirs && (everybody_may_write(where) || !S_ISREG(what.st_mode))) {
      return planted(path, "somebody else's file");
    }
    if (what.st_nlink > 1) return planted(path, "a file with another name elsewhere");
  }
  if (!has_no_reader) {
    ::fcntl(file.get(), F_SETFL, ::fcntl(file.get(), F_GETFL) & ~O_NONBLOCK);
    return file;
  }
  const std::string itself = "/proc/self/fd/" + std::to_string(file.get());
  Descriptor waited(::open(itself.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY));
  if (!waited) return system_error("cannot write " + path, errno);
  return waited;
}

}  // namespace cowshed::cowtop
