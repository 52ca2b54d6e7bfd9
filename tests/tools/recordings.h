#pragma once

#include <string>

#include <cowshed/cow/process_copies.h>

namespace cowshed::cowtop {

// A measurement in which every field is something else than when it was made.
cow::Measurement full_measurement();

// A folder of the test's own, which goes with it.
class TestFolder {
 public:
  TestFolder();
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  ~TestFolder();
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

std::string contents_of(const std::string& path);
void write_file(const std::string& path, const std::string& contents);

}  // namespace cowshed::cowtop
