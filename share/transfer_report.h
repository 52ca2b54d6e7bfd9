#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/share/accounting/counter.h>

// What this process has sent, and how: counted for every channel and every launch of workers.
//
//   const auto report = cowshed::transfer_report();
//   std::fputs(to_table(report).c_str(), stdout);
//
// It begins with the process: a forked child's report has nothing of its parent's.  cowtop shows
// the totals of processes that run.
namespace cowshed {

// Bytes by value are those that were sent; by reference and moved those of the objects, which were
// not copied.
struct TransferTotals {
  std::uint64_t messages = 0;  // of a launch: arguments
  std::uint64_t objects = 0;
  std::uint64_t bytes = 0;

  TransferTotals& operator+=(const TransferTotals& other);
};

struct TransferredType {
  std::string type;  // for people to read
  TransferKind kind = {};
  TransferTotals sent;
};

struct TransferSource {
  // "channel" or "launch"; "result": the values that came back from a launch's workers, which alone
  // this process has not sent but received.
  std::string origin;
  std::string name;  // the user's
  TransferTotals by_value;
  TransferTotals by_reference;
  TransferTotals moved;
  TransferTotals inherited;            // by fork: nothing was sent
  std::vector<TransferredType> types;  // most bytes first
};

struct TransferReport {
  pid_t pid = 0;
  std::vector<TransferSource> sources;  // most bytes by value first: those cost time
};

// All that this process has sent since it began or was forked, while other threads send: each
// figure is as of some moment in the call.  Channels and launches of one name count together.
// Thread-safe, takes microseconds.
TransferReport transfer_report();

// For people: totals, and a line for each type sent.
std::string to_table(const TransferReport& report);

}  // namespace cowshed
