#pragma once

#include <cstdint>
#include <vector>

#include <cowshed/share/transfer_counter.h>

// What transfer_report.cc needs of the counters.
namespace cowshed {

struct CountedTransfer {
  layout::Transfer what;
  layout::TransferCount count;  // of this process
  std::uint64_t messages_looked_into = 0;
  std::vector<TypePath> paths;  // of those messages, in no order
};

// Every row of which anything was counted.  While others send, each of its figures is as of some
// moment in the call.
std::vector<CountedTransfer> counted_transfers();

}  // namespace cowshed
