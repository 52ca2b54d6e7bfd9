#include <cstdlib>
#include <stdexcept>
#include <sys/stat.h>

#include <cowshed/tests/support/public_copy.h>

namespace cowshed::test {

PublicCopy::PublicCopy(const std::string& program) {
  std::string pattern = (std::filesystem::temp_directory_path() / "cowshed-public-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) {
    throw std::runtime_error("mkdtemp " + pattern);
  }
  path_ = std::filesystem::path(pattern) / std::filesystem::path(program).filename();
  std::filesystem::copy_file(program, path_);
  ::chmod(pattern.c_str(), 0755);
  ::chmod(path_.c_str(), 0755);
}

PublicCopy::~PublicCopy() {
  std::error_code ignored;
  std::filesystem::remove_all(path_.parent_path(), ignored);
}

}  // namespace cowshed::test
