#include <cerrno>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include <cowshed/tools/cowtop/report_file.h>

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

}  // namespace

Expected<ReportFile> ReportFile::open(const std::string& path) {
  if (path.empty() && ::fcntl(STDOUT_FILENO, F_GETFD) < 0) {
    return system_error("cannot write the report to standard output", errno);
  }
  hold_closed_standard_descriptors();
  if (path.empty()) return ReportFile("standard output", STDOUT_FILENO);
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return system_error("cannot write " + path, errno);
  return ReportFile(path, fd);
}

ReportFile::ReportFile(ReportFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

ReportFile::~ReportFile() {
  if (fd_ > STDOUT_FILENO) ::close(fd_);
}

Expected<void> ReportFile::write(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd_, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      auto error = system_error("cannot write the report to " + path_, errno);
      // A part of it would be taken for the whole.
      if (fd_ > STDOUT_FILENO && ::ftruncate(fd_, 0) == 0) {
        error.value().message += "; it is left empty";
      }
      return error;
    }
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

}  // namespace cowshed::cowtop
