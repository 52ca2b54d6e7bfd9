#include <sys/file.h>
#include <system_error>

#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/setting.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::test {
namespace {

// Of a choice such as "always [madvise] never", the word in brackets.
std::string current_value(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  const std::size_t open = line.find('[');
  const std::size_t close = line.find(']');
  return open == std::string::npos || close == std::string::npos
             ? line
             : line.substr(open + 1, close - open - 1);
}

std::string lock_of(std::string path) {
  std::ranges::replace(path, '/', '-');
  return "/var/tmp/cowshed" + path;
}

}  // namespace

Setting::Setting(std::string path, const std::string& value)
    : path_(std::move(path)),
      lock_path_(lock_of(path_)),
      lock_(open(lock_path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {
  const auto fail = [&](const std::string& why) {
    if (lock_ >= 0) close(lock_);
    throw std::runtime_error(why);
  };
  const auto lock_failed = [&] { fail(lock_path_ + ": " + std::system_category().message(errno)); };
  if (lock_ < 0) lock_failed();
  while (flock(lock_, LOCK_EX) != 0)
    if (errno != EINTR) lock_failed();
  std::array<char, 64> kept{};
  const ssize_t length = pread(lock_, kept.data(), kept.size(), 0);
  if (length < 0) lock_failed();
  // The file is empty where the last one ended well.
  before_ = length > 0 ? std::string(kept.data(), static_cast<std::size_t>(length))
                       : current_value(path_);
  if (pwrite(lock_, before_.data(), before_.size(), 0) < 0) lock_failed();
  if (!write_file(path_, value)) fail(path_ + ": does not take " + value);
}

Setting::~Setting() {
  if (!write_file(path_, before_)) ADD_FAILURE() << path_ << ": does not take " << before_;
  else if (ftruncate(lock_, 0) != 0)
    ADD_FAILURE() << lock_path_ << ": " << std::system_category().message(errno);
  close(lock_);
}

}  // namespace cowshed::test
