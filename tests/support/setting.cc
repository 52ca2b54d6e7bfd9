#include <algorithm>
#include <array>
#include <fcntl.h>
#include <fstream>
#include <gtest/gtest.h>
#include <stdexcept>
#include <sys/file.h>
#include <unistd.h>

#include <cowshed/tests/support/setting.h>

namespace cowshed::test {
namespace {

// Of a choice such as "always [madvise] never", the word in brackets.
std::string chosen(const std::string& line) {
  const std::size_t open = line.find('[');
  const std::size_t close = line.find(']');
  return open == std::string::npos || close == std::string::npos
             ? line
             : line.substr(open + 1, close - open - 1);
}

std::string current(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return chosen(line);
}

void set(const std::string& path, const std::string& value) {
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

}  // namespace

Setting::Setting(const std::string& path, const std::string& value)
    : path_(path), lock_(open(lock_of(path).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
  if (lock_ < 0 || flock(lock_, LOCK_EX) != 0) {
    throw std::runtime_error(lock_of(path));
  }
  std::array<char, 64> kept{};
  const ssize_t length = pread(lock_, kept.data(), kept.size(), 0);
  if (length > 0) {
    before_.assign(kept.data(), static_cast<std::size_t>(length));
  } else {  // the last one ended well
    before_ = current(path);
    if (pwrite(lock_, before_.data(), before_.size(), 0) < 0) {
      throw std::runtime_error(lock_of(path));
    }
  }
  set(path, value);
}

Setting::~Setting() {
  try {
    set(path_, before_);
    if (ftruncate(lock_, 0) != 0) {
      ADD_FAILURE() << lock_of(path_);
    }
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what();
  }
  close(lock_);
}

}  // namespace cowshed::test
