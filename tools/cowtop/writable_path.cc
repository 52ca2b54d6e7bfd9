#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <fcntl.h>
#include <linux/magic.h>
#include <optional>
#include <string_view>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <utility>

#include <cowshed/tools/cowtop/writable_path.h>

namespace cowshed::cowtop {
namespace {

constexpr int kMostLinks = 40;  // as the kernel

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

bool is_in_proc(const Descriptor& file) {
  struct statfs system{};
  return ::fstatfs(file.get(), &system) == 0 && system.f_type == PROC_SUPER_MAGIC;
}

// For whom sudo(8) runs us as root.
std::optional<uid_t> invoking_user() {
  const char* text = ::geteuid() == 0 ? std::getenv("SUDO_UID") : nullptr;
  if (text == nullptr) return std::nullopt;
  const std::string_view digits(text);
  uid_t user = 0;
  const auto [end, error] = std::from_chars(digits.begin(), digits.end(), user);
  if (error != std::errc() || end != digits.end() || user == 0) return std::nullopt;
  return user;
}

// From folder to folder by descriptors: what has been looked at is what is opened.
class Walk {
 public:
  explicit Walk(const std::string& path) : path_(path), rest_(path) {}

  Expected<Descriptor> open() {
    start();
    for (;;) {
      take_name();
      // Before anything is made there.
      if (is_last_ && by_invokers_link_ &&
          (!is_invokers_alone(status_of(folder_)) || is_in_proc(folder_))) {
        return make_error(ErrorCode::permission_denied,
                          path_ +
                              ": a symbolic link of the user who called sudo leads to a folder"
                              " that is not that user's alone; name that folder");
      }
      Descriptor next(open_name(O_NOFOLLOW));
      // In a sticky folder the kernel may refuse others' links before it says what they are.
      if (!next && (errno == ELOOP || errno == ENOTDIR || (errno == EACCES && is_link()))) {
        const auto followed = follow(next);
        if (!followed) return tl::make_unexpected(followed.error());
        if (!next) continue;
      }
      if (!next) return cannot(errno);
      if (!is_last_) {
        folder_ = std::move(next);
        continue;
      }
      if (const auto fine = check(next); !fine) return tl::make_unexpected(fine.error());
      const int flags = ::fcntl(next.get(), F_GETFL);
      if ((flags & O_PATH) == 0) {
        ::fcntl(next.get(), F_SETFL, flags & ~O_NONBLOCK);
        return next;
      }
      const std::string itself = "/proc/self/fd/" + std::to_string(next.get());
      Descriptor waited(::open(itself.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY));
      return waited ? Expected<Descriptor>(std::move(waited)) : cannot(errno);
    }
  }

 private:
  void start() {
    const char* folder = rest_.starts_with('/') ? "/" : ".";
    folder_ = Descriptor(::open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC));
  }

  void take_name() {
    const auto begin = std::min(rest_.find_first_not_of('/'), rest_.size());
    auto end = std::min(rest_.find('/', begin), rest_.size());
    is_last_ = rest_.find_first_not_of('/', end) == std::string::npos;
    if (is_last_) end = rest_.size();  // a slash at the end is for the kernel to refuse
    name_ = begin < end ? rest_.substr(begin, end - begin) : ".";
    rest_.erase(0, end);
  }

  // -1, as open(2).  A FIFO without a reader: not opened to write yet, as O_PATH says.
  int open_name(int nofollow) const {
    const int flags = O_CLOEXEC | O_NOCTTY | nofollow;
    if (!is_last_) return ::openat(folder_.get(), name_.c_str(), O_PATH | O_DIRECTORY | flags);
    // What somebody else has put there is not waited for.
    const int fd =
        ::openat(folder_.get(), name_.c_str(), O_WRONLY | O_CREAT | O_NONBLOCK | flags, 0666);
    if (fd >= 0 || errno != ENXIO) return fd;
    return ::openat(folder_.get(), name_.c_str(), O_PATH | flags);
  }

  // Leaves errno alone.
  bool is_link() const {
    const int error = errno;
    struct stat status{};
    const bool is = ::fstatat(folder_.get(), name_.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0 &&
                    S_ISLNK(status.st_mode);
    errno = error;
    return is;
  }

  // Puts the target of a symlink before the rest of the way, or opens it as `next`.
  Expected<void> follow(Descriptor& next) {
    const Descriptor link(::openat(folder_.get(), name_.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    const struct stat status = status_of(link);
    if (!S_ISLNK(status.st_mode)) return cannot(ENOTDIR);
    const struct stat folder = status_of(folder_);
    if ((is_last_ && everybody_may_write(folder)) ||
        (others_may_write(folder) && !is_trusted(status.st_uid))) {
      if (is_in_proc(link) || status.st_uid != invoker_ || !is_invokers_alone(folder)) {
        return is_last_ ? planted("a symbolic link", "the file that it points to, or another one")
                        : planted("its folder " + name_ + " is a symbolic link",
                                  "the folder that it points to, or another one");
      }
      by_invokers_link_ = true;
    }
    // What those of /proc point to may have no name, as a pipe.
    if (is_in_proc(link)) {
      next = Descriptor(open_name(0));
      return next ? Expected<void>() : cannot(errno);
    }
    std::array<char, PATH_MAX> target;
    const ssize_t size = ::readlinkat(link.get(), "", target.data(), target.size());
    if (size <= 0) return cannot(errno);
    if (++links_ > kMostLinks) return cannot(ELOOP);
    rest_.insert(0, std::string(target.data(), static_cast<std::size_t>(size)));
    if (rest_.starts_with('/')) start();
    return {};
  }

  bool is_invokers_alone(const struct stat& folder) const {
    return folder.st_uid == invoker_ && (folder.st_mode & (S_IWGRP | S_IWOTH)) == 0;
  }

  Expected<void> check(const Descriptor& file) const {
    const struct stat status = status_of(file);
    const struct stat folder = status_of(folder_);
    if (!others_may_write(folder)) return {};
    if (status.st_uid != ::geteuid() && (everybody_may_write(folder) || !S_ISREG(status.st_mode))) {
      return planted("somebody else's file");
    }
    if (status.st_nlink > 1) return planted("a file with another name elsewhere");
    return {};
  }

  tl::unexpected<Error> planted(const std::string& what,
                                const std::string& rather = "another file") const {
    return make_error(ErrorCode::permission_denied,
                      path_ + ": " + what +
                          " in a folder that others may write to; remove it, or name " + rather);
  }
  tl::unexpected<Error> cannot(int error) const {
    return system_error("cannot write " + path_, error);
  }

  std::string path_;
  std::string rest_;  // of the way, from `folder_`
  Descriptor folder_;
  std::string name_;
  bool is_last_ = false;
  int links_ = 0;
  std::optional<uid_t> invoker_ = invoking_user();
  // From then on the way may end only where that user could have written without us.
  bool by_invokers_link_ = false;
};

}  // namespace

Expected<Descriptor> open_for_writing(const std::string& path) { return Walk(path).open(); }

}  // namespace cowshed::cowtop
