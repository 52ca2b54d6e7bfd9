#pragma once

#include <string>

namespace cowshed {

// While one lives, what libbpf would print on this thread is collected instead.  The callback is
// one per process: it is put back at the end, and other threads' text is passed on to it.
class LibbpfLog {
 public:
  LibbpfLog();
  ~LibbpfLog();
  LibbpfLog(const LibbpfLog&) = delete;
  LibbpfLog& operator=(const LibbpfLog&) = delete;

  // The reason in one line: what the verifier said last, else libbpf's first complaint.
  std::string reason() const;

 private:
  std::string text_;
};

}  // namespace cowshed
