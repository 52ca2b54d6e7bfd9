#pragma once

#include <chrono>
#include <optional>
#include <string>

#include <cowshed/share/content.h>
#include <cowshed/share/launch.h>
#include <cowshed/share/stray_write.h>

// A worker as its parent knows it.
namespace cowshed::launch {

// From its start to its end.
struct Child {
  Launched at;  // no pidfd: it has been reaped
  std::chrono::steady_clock::time_point started;
  int restarts = 0;
  bool begun = false;                  // a spawned one has come to its function
  bool timed_out = false;              // it had not in time
  bool reported = false;               // the forkserver said how it ended
  bool untold = false;                 // it was stopped, and said nothing
  std::optional<std::string> refused;  // by the forkserver
  int exit_code = -1;
  int signal = 0;
  std::optional<StrayWrite> stray_write;
  std::optional<std::string> failure;
  std::optional<internal::Content> value;
  std::string unread;  // why something that it said could not be received

  bool running() const { return static_cast<bool>(at.pidfd); }
  void set_end(int code, int status);  // as in siginfo_t
  void read_messages();                // as many as there are
};

// What went wrong with one that has ended, "" when nothing did.  With `with_value` it should have
// left one.
std::string describe_end(const Launch& launch, int rank, const Child& child, bool with_value);

}  // namespace cowshed::launch
