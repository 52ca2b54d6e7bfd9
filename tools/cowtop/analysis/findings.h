#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/tools/cowtop/analysis/remedies.h>
#include <cowshed/tools/cowtop/analysis/summary.h>

// What cowtop says of a measurement.  The report puts the heaviest into words that fit on a screen;
// JSON has them all, and `cowtop check` names its culprits by them.
namespace cowshed::cowtop {

enum class FindingKind : std::uint8_t {
  // The verdict, one of these: `subject` copied much; the sharing holds; nobody shares memory;
  // the copies are not known.
  copied,
  little,
  not_shared,
  not_known,
  crash,    // of a group of processes
  remark,   // a sentence of the head of the report; remarks.cc has all, and their names
  parent,   // what a parent copied while one child lived
  process,  // only culprits of cowtop check
  object,   // the same
  site,
  mapping,
  cause,
  type,
  new_cause,
  new_site,
  cost,  // what no other finding has: a fork's page tables, programs that are started by fork()
};

struct Finding {
  FindingKind kind = FindingKind::cost;
  std::string_view name = {};  // of a remark
  std::string subject = {};
  std::uint64_t bytes = 0;     // or samples, or processes
  std::uint64_t of_bytes = 0;  // of what they are a part; 0: of nothing
  bool is_estimate = false;
  std::string remark = {};
  std::string file = {};  // of a site, if known
  int line = 0;
  std::size_t index = 0;  // of the group, or the parent, in the summary
  // 1 to 9: the report leaves out the lightest first.
  int weight = 9;
  std::vector<Advice> remedies = {};
};
std::string_view kind_of(const Finding& finding);  // "new_site", or a remark's: "own_memory"

// In the order of the report.
std::vector<Finding> findings_of(const cow::Measurement& measurement, const Summary& summary);

// The remedies of all findings, the most saving first.
std::vector<Advice> remedies_of(const std::vector<Finding>& findings);

// Those of one kind.
std::vector<Finding> of_kind(const std::vector<Finding>& findings, FindingKind kind);

}  // namespace cowshed::cowtop
