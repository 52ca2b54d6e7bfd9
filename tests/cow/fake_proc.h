#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <string>

#include <cowshed/cow/proc_files.h>

namespace cowshed::cow {

// A /proc in a temporary folder.
class FakeProc : public ::testing::Test {
 protected:
  FakeProc() {
    std::string pattern = (std::filesystem::temp_directory_path() / "cowshed-proc-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
  }
  ~FakeProc() override { std::filesystem::remove_all(root_); }

  void write(const std::string& file, const std::string& text) const {
    std::filesystem::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  ProcFiles proc() const { return ProcFiles(root_.string()); }

  std::filesystem::path root_;
};

}  // namespace cowshed::cow
