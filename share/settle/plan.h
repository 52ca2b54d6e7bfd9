#pragma once

#include <string>
#include <vector>

#include <cowshed/share/settle/mappings.h>
#include <cowshed/share/settle/mover.h>
#include <cowshed/share/settle/options.h>
#include <cowshed/share/settle/pages.h>

namespace cowshed::settling {

// What to move, and what stays.
struct Plan {
  std::pmr::vector<Piece> pieces;
  std::vector<LeftMemory> left;
};

// How much of so many bytes one file has.  After a write to a file's mapping, fork() copies the
// page tables of all that mapping.  With more files fewer are copied, but each fork() copies more
// mappings.
std::size_t file_bytes(std::size_t total);

std::span<const std::byte> span_of(const Range& range);

// One entry for what continues the last.
void leave(const Range& range, const std::string& reason, std::vector<LeftMemory>& left);

// `foreign` says whose malloc this process uses, if it is not glibc's.  Errors: system_call,
// invalid_argument.
Expected<Plan> plan_settle(const SettleOptions& options, const std::string& foreign,
                           const OwnPages& pages, std::pmr::memory_resource* memory);
// The mappings of which this process has pages of its own.
Expected<Plan> plan_reshare(const SettleOptions& options, std::pmr::memory_resource* memory);
Expected<Plan> plan_unsettle(const SettleOptions& options, std::pmr::memory_resource* memory);

}  // namespace cowshed::settling
