#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <iostream>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include <cowshed/tools/cowtop/io/output_file.h>
#include <cowshed/tools/cowtop/live/terminal/standard_streams.h>

namespace cowshed::cowtop::live {
namespace {

void flush() {
  std::cout.flush();
  std::cerr.flush();
  std::fflush(nullptr);
}

}  // namespace

Expected<StandardStreams> StandardStreams::take() {
  StandardStreams streams;
  streams.file_ = nameless_file();
  const FileDescriptor nothing(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!streams.file_ || !nothing) return system_error("a file for the output", errno);
  flush();
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::isatty(fd) != 1) continue;
    streams.before_.at(static_cast<std::size_t>(fd)) =
        ::fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    ::dup2(fd == STDIN_FILENO ? nothing.get() : streams.file_.get(), fd);
  }
  return streams;
}

StandardStreams::~StandardStreams() {
  if (!file_) return;  // it has been moved
  give_back();
  print_new();
}

void StandardStreams::give_back() {
  flush();
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    int& before = before_.at(static_cast<std::size_t>(fd));
    if (before < 0) continue;
    ::dup2(before, fd);
    ::close(std::exchange(before, -1));
  }
}

void StandardStreams::print_new() {
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t got =
        ::pread(file_.get(), buffer.data(), buffer.size(), static_cast<off_t>(printed_));
    if (got <= 0) return;
    for (ssize_t written = 0; written < got;) {
      const ssize_t more =
          ::write(STDOUT_FILENO, buffer.data() + written, static_cast<std::size_t>(got - written));
      if (more < 0 && errno == EINTR) continue;
      if (more <= 0) return;
      written += more;
      printed_ += static_cast<std::size_t>(more);
    }
  }
}

std::string StandardStreams::last(std::size_t most) const {
  struct stat status{};
  if (::fstat(file_.get(), &status) != 0) return {};
  const auto size = static_cast<std::size_t>(status.st_size);
  std::string text(std::min(size, most), '\0');
  const ssize_t got =
      ::pread(file_.get(), text.data(), text.size(), static_cast<off_t>(size - text.size()));
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  return text;
}

}  // namespace cowshed::cowtop::live
