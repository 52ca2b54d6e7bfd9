#include <cerrno>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include <cowshed/tools/cowtop/report_file.h>

namespace cowshed::cowtop {

Expected<ReportFile> ReportFile::open(const std::string& path) {
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
    if (written < 0) return system_error("cannot write the report to " + path_, errno);
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

}  // namespace cowshed::cowtop
