#pragma once

#include <string>

namespace cowshed {

// Collects the messages of libbpf on this thread during its life.  The callback is one per process:
// messages of other threads are passed on, and the destructor restores it.
class LibbpfLog {
 public:
  LibbpfLog();
  ~LibbpfLog();
  LibbpfLog(const LibbpfLog&) = delete;
  LibbpfLog& operator=(const LibbpfLog&) = delete;

  // Returns one line: the verifier's reason, else the first of libbpf.
  std::string reason() const;

 private:
  std::string text_;
};

}  // namespace cowshed
