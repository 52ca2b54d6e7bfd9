#include "kernel_setting.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <fstream>
#include <stdexcept>
#include <sys/file.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace cowshed::bench {
namespace {

// Of a choice such as "always [madvise] never", the word in brackets.
std::string chosen_of(const std::string& line) {
  const std::size_t open = line.find('[');
  const std::size_t close = line.find(']');
  return open == std::string::npos || close == std::string::npos
             ? line
             : line.substr(open + 1, close - open - 1);
}

std::string current_value(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return chosen_of(line);
}

void write_value(const std::string& path, const std::string& value) {
  std::ofstream file(path);
  file << value << std::endl;
  if (!file) {
    throw std::runtime_error(path + ": does not take " + value);
  }
}

std::string lock_of(std::string path) {
  std::replace(path.begin(), path.end(), '/', '-');
  return "/var/tmp/cowshed" + path;
}

std::runtime_error failure_of(const std::string& lock_path) {
  return std::runtime_error(lock_path + ": " + std::system_category().message(errno));
}

}  // namespace

KernelSetting::KernelSetting(std::string path)
    : path_(std::move(path)),
      lock_path_(lock_of(path_)),
      lock_(open(lock_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
  if (lock_ < 0) {
    throw failure_of(lock_path_);
  }
  int locked = -1;
  do {
    locked = flock(lock_, LOCK_EX);
  } while (locked != 0 && errno == EINTR);
  std::array<char, 64> kept{};
  const ssize_t length = locked == 0 ? pread(lock_, kept.data(), kept.size(), 0) : -1;
  if (length < 0) {
    const std::runtime_error failure = failure_of(lock_path_);
    close(lock_);
    throw failure;
  }
  // Nothing is kept where the last one ended well.
  before_ = length > 0 ? std::string(kept.data(), static_cast<std::size_t>(length))
                       : current_value(path_);
}

KernelSetting::~KernelSetting() { close(lock_); }

void KernelSetting::set(const std::string& value) {
  if (pwrite(lock_, before_.data(), before_.size(), 0) < 0) {
    throw failure_of(lock_path_);
  }
  write_value(path_, value);
}

void KernelSetting::put_back() {
  write_value(path_, before_);
  if (ftruncate(lock_, 0) != 0) {
    throw failure_of(lock_path_);
  }
}

}  // namespace cowshed::bench
