#pragma once

#include <string>
#include <string_view>

#include <cowshed/base/error.h>

namespace cowshed::cowtop {

// Where a report goes.  Opened before the command runs, so that a path that cannot be written is
// known before hours of measuring.  Move-only, owns its descriptor.
class ReportFile {
 public:
  // An empty `path` is standard output.
  static Expected<ReportFile> open(const std::string& path);
  ReportFile(ReportFile&& other) noexcept;
  ReportFile& operator=(ReportFile&&) = delete;
  ReportFile(const ReportFile&) = delete;
  ReportFile& operator=(const ReportFile&) = delete;
  ~ReportFile();

  // All of `text`, or an error that names the file, which then is empty where it can be.
  Expected<void> write(std::string_view text);

 private:
  ReportFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::string path_;
  int fd_;
};

}  // namespace cowshed::cowtop
