#pragma once

#include <filesystem>
#include <string>

#include <cowshed/tests/support/folder.h>

namespace cowshed::test {

// A copy of a program that every user may run, wherever the build folder lies.
class PublicCopy {
 public:
  explicit PublicCopy(const std::string& program)
      : path_(folder_ / std::filesystem::path(program).filename()) {
    std::filesystem::copy_file(program, path_);
    for (const auto& each : {folder_.path(), path_})
      std::filesystem::permissions(each, std::filesystem::perms(0755));
  }

  std::string path() const { return path_.string(); }

 private:
  Folder folder_;
  std::filesystem::path path_;
};

}  // namespace cowshed::test
