#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include <cowshed/tools/cowtop/output_file.h>

namespace cowshed::cowtop {
namespace {

// A standard descriptor that is closed would be the next file that is opened, and what is meant for
// it would be written there: a warning into the report.  The command has it closed as before.
void hold_closed_standard_descriptors() {
  int fd = -1;
  do {
    fd = ::open("/dev/null", O_PATH | O_CLOEXEC);
  } while (fd >= 0 && fd <= STDERR_FILENO);
  if (fd >= 0) ::close(fd);
}

bool is_in_shared_folder(const std::string& path) {
  const auto slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  struct stat status {};
  return ::stat(folder.c_str(), &status) == 0 && (status.st_mode & S_IWOTH) != 0;
}

// A file that has come to its limit (setrlimit(2)) is an error of ours, not our end.
class FileSizeSignalIgnored {
 public:
  FileSizeSignalIgnored() : before_(std::signal(SIGXFSZ, SIG_IGN)) {}
  FileSizeSignalIgnored(const FileSizeSignalIgnored&) = delete;
  FileSizeSignalIgnored& operator=(const FileSizeSignalIgnored&) = delete;
  ~FileSizeSignalIgnored() { std::signal(SIGXFSZ, before_); }

 private:
  void (*before_)(int);
};

tl::unexpected<Error> planted(const std::string& path, const char* what) {
  return make_error(ErrorCode::permission_denied,
                    path + ": " + what +
                        " in a folder that everybody may write to; remove it, or "
                        "name another file");
}

}  // namespace

Expected<OutputFile> OutputFile::open(const std::string& path) {
  if (path.empty() && ::fcntl(STDOUT_FILENO, F_GETFD) < 0) {
    return system_error("cannot write to standard output", errno);
  }
  hold_closed_standard_descriptors();
  if (path.empty()) return OutputFile("standard output", STDOUT_FILENO);
  const bool shared = is_in_shared_folder(path);
  const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | (shared ? O_NOFOLLOW : 0);
  OutputFile file(path, ::open(path.c_str(), flags, 0666));
  if (file.fd_ < 0 && shared && errno == ELOOP) return planted(path, "a symbolic link");
  if (file.fd_ < 0) return system_error("cannot write " + path, errno);
  struct stat status {};
  if (shared && ::fstat(file.fd_, &status) == 0) {
    if (status.st_uid != ::geteuid()) return planted(path, "somebody else's file");
    if (status.st_nlink > 1) return planted(path, "a file with another name elsewhere");
  }
  return file;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      size_(std::exchange(other.size_, 0)) {}

OutputFile::~OutputFile() {
  if (fd_ > STDOUT_FILENO) ::close(fd_);
}

bool OutputFile::cut(std::size_t size) const {
  return fd_ > STDOUT_FILENO && ::ftruncate(fd_, static_cast<off_t>(size)) == 0 &&
         ::lseek(fd_, static_cast<off_t>(size), SEEK_SET) >= 0;
}

void OutputFile::clear() {
  if (cut(0)) size_ = 0;
}

Expected<void> OutputFile::append(std::string_view bytes) {
  const FileSizeSignalIgnored ignored;
  const std::size_t before = size_;
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
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
  // A part of it would be taken for the whole.
  if (!written && cut(0)) written.error().message += "; it is left empty";
  return written;
}

}  // namespace cowshed::cowtop
