#pragma once

#include <filesystem>
#include <string>

namespace cowshed::test {

// A copy of a program that every user may run, wherever the build folder lies.
class PublicCopy {
 public:
  explicit PublicCopy(const std::string& program);
  PublicCopy(const PublicCopy&) = delete;
  PublicCopy& operator=(const PublicCopy&) = delete;
  ~PublicCopy();

  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace cowshed::test
