#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

#include <cowshed/share/accounting/counter.h>

// Counts what this process has sent, for each channel and each launch of workers.
//
//   const auto report = cowshed::transfer_report();
//   std::fputs(to_table(report).c_str(), stdout);
//
// Fork: a child's counts start at 0.  cowtop shows the totals of running processes.
namespace cowshed {

struct TransferTotals {
  std::uint64_t messages = 0;  // for a launch: arguments
  std::uint64_t objects = 0;
  std::uint64_t bytes = 0;  // by value: bytes that were copied; else the size of the objects

  TransferTotals& operator+=(const TransferTotals& other);
};

struct TransferredType {
  std::string type;  // shortened for people
  TransferKind kind = {};
  TransferTotals sent;
};

struct TransferSource {
  // "channel", "launch" or "result".  Results are the values that a launch's workers returned, so
  // this process received them.
  std::string origin;
  std::string name;  // of the channel or launch
  TransferTotals by_value;
  TransferTotals by_reference;
  TransferTotals moved;
  TransferTotals inherited;            // by fork, without being sent
  std::vector<TransferredType> types;  // most bytes first
};

struct TransferReport {
  pid_t pid = 0;
  std::vector<TransferSource> sources;  // most bytes by value first
};

// Returns the counts since this process started or was forked.  Channels with the same name count
// together, and so do launches.  Thread-safe.  While other threads send, the counts are not an
// atomic snapshot.  Takes microseconds.
TransferReport transfer_report();

// Formats a report for people: the totals, and a line for each type that was sent.
std::string to_table(const TransferReport& report);

}  // namespace cowshed
