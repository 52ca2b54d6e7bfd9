#pragma once

#include <cstddef>
#include <memory>
#include <set>
#include <sys/types.h>

#include <cowshed/cow/file_opener.h>
#include <cowshed/cow/helper_process.h>

namespace cowshed::cow {

// Opens files in a process of its own: a file system that does not answer, as of a hostile FUSE
// server, holds up that process alone.  One that does not answer in a second is not asked again,
// and after some of them none is.
class OpenerProcess {
 public:
  explicit OpenerProcess(ProcFiles proc) : proc_(std::move(proc)) {}

  Descriptor open(const FileRequest& request);

  std::size_t hung() const { return hung_; }

 private:
  static constexpr std::size_t kMostHung = 5;

  ProcFiles proc_;
  std::unique_ptr<HelperProcess> process_;  // null: the next file starts one
  std::set<dev_t> hung_devices_;
  std::size_t hung_ = 0;
};

}  // namespace cowshed::cow
