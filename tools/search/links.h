#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/base/error.h>

// How workers tell the parent what they found: one socket each.
namespace cowshed::search {

// What a worker knows of its own work; sent as bytes, after its last answer.
struct WorkerSummary {
  std::uint64_t references_copied = 0;
  std::uint64_t frees = 0;
  std::uint64_t private_bytes_at_start = 0;
  std::uint64_t private_bytes_at_end = 0;
  std::uint64_t arena_copied_bytes = 0;  // meaningful when has_arena
  std::uint64_t dropped_frees = 0;       // the arena's own count
  double busy_s = 0;
  bool has_arena = false;
};

// What came from one.
struct WorkerMessages {
  std::vector<std::pair<std::uint64_t, std::string>> answers;  // query number, answer
  WorkerSummary summary;
  bool complete = false;  // the summary came, and with it all
};

// Made before the workers, in which each keeps its own end.  Descriptors close with the object.
class Links {
 public:
  static Expected<Links> create(std::size_t count);
  Links(Links&&) noexcept = default;
  Links& operator=(Links&&) = delete;
  Links(const Links&) = delete;
  Links& operator=(const Links&) = delete;
  ~Links();

  // In a worker.  Errors of the sends: the parent is gone.
  void keep_only(std::size_t rank);
  void wait_for_signal() const;  // begin(), dismiss(), or the parent's end
  Expected<void> send_answer(std::uint64_t query, std::string_view answer) const;
  Expected<void> send_summary(const WorkerSummary& summary) const;

  // In the parent.  begin() when all are forked: the first shall not slow down the forks of the
  // others.
  void begin() const;
  // All that the workers send, read side by side until each has finished or died, so
  // that none waits for another's reader.
  Expected<std::vector<WorkerMessages>> collect();
  void dismiss();

 private:
  Links() = default;
  Expected<void> send(std::uint64_t query, std::string_view payload) const;

  std::vector<int> parent_ends_;
  std::vector<int> worker_ends_;
  int own_ = -1;
};

}  // namespace cowshed::search
