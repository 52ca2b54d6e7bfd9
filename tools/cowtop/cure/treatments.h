#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <cowshed/tools/cowtop/analysis/remedies.h>
#include <cowshed/tools/cowtop/cure/trial.h>

// A command as it is, beside the same with each remedy.
namespace cowshed::cowtop {

// The least and the most of some runs.
struct Interval {
  double least = 0;
  double most = 0;
  double middle() const { return (least + most) / 2; }
};

// The runs with one remedy, or as the command is.
struct Treatment {
  std::optional<Cure> cure;
  std::vector<Trial> trials = {};
  Likeness likeness = Likeness::same;         // to the runs of the command as it is
  std::optional<Difference> difference = {};  // from the first of them
  std::string remark = {};                    // beside its row

  Interval peak_bytes() const;  // PSS of all processes
  // Before the workers' end; nullopt: it is the peak, or not known of all runs.
  std::optional<Interval> in_service_bytes() const;
  bool is_peak_bounded() const;  // else some ended unread: the most is not known
  std::optional<Interval> copied_bytes() const;
  Interval new_bytes() const;                       // that children allocated, at the least
  std::optional<Interval> longest_fork_ms() const;  // nullopt: not known, or no fork
  Interval seconds() const;
};

struct NotTried {
  std::string name;
  std::string why;
};

struct Treatments {
  std::vector<std::string> command;
  Treatment as_it_is;
  std::vector<Treatment> cured;
  std::vector<NotTried> not_tried;
  std::vector<std::string> left_behind = {};  // by the first run; the sixth is how many more
  bool is_stopped = false;                    // because of these
};

// That which needs the least memory at the peak, or, if others may need as little, copies the
// least. Null if none helps: 5 % of the peak and 1 MiB, more than the runs differ; or a fifth of
// the copies and 1 MiB, with no higher peak; or half of the longest fork, from 10 ms on, with a
// peak that is at most 5 % higher.  One that writes other lines never helps; other numbers may.
const Treatment* best_of(const Treatments& treatments);

// A command with a cure's environment and prefix, quoted for a shell.
std::string shell_line(const Cure& cure, const std::vector<std::string>& command);

// That line; of a remedy that is tried by a file of ours, what to do for good.
std::string command_line(const Cure& cure, const std::vector<std::string>& command);

std::string cure_table(const Treatments& treatments);
std::string cure_json(const Treatments& treatments);  // schema cowshed.cure/1

}  // namespace cowshed::cowtop
