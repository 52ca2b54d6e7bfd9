#pragma once

#include <cowshed/cow/proc/proc_files.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {

// A /proc in a temporary folder.
class FakeProc : public ::testing::Test {
 protected:
  void write(const std::string& file, const std::string& text) const { folder_.write(file, text); }
  ProcFiles proc() const { return ProcFiles(root_.string()); }

  const cowshed::test::Folder folder_;
  const std::filesystem::path& root_ = folder_.path();
};

}  // namespace cowshed::cow
