#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <cowshed/cow/measurement.h>

namespace cowshed::cowtop {

// The files of a folder and of those within, as they were when it was made.  Folders of caches,
// logs and what our process group has open for writing do not count.  Of a large folder it knows
// the upper levels.
class FolderState {
 public:
  explicit FolderState(std::string folder);

  // The files and folders that are new, changed or gone since: "count.txt (new)".
  std::vector<std::string> changed() const;

 private:
  struct File {
    std::uint64_t inode = 0;
    std::int64_t size = 0;  // of a folder: -1
    std::int64_t changed_ns = 0;
    bool operator==(const File&) const = default;
  };
  using Files = std::map<std::string, File>;

  static bool add_files_of(const std::string& folder, const std::string& within, Files& files);

  std::string folder_;
  Files files_;
  std::vector<std::string> folders_;  // of which all files are known; "" or "name/"
};

// The processes that still run: "PID 7 (server), which listens on port 8000".
std::vector<std::string> processes_left(const cow::Measurement& measurement);

}  // namespace cowshed::cowtop
