#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include <cowshed/cow/fork_copies.h>
#include <cowshed/tools/cowtop/live/model/history.h>

namespace cowshed::cowtop::live {

// The memory of a running process, measured only for the view.  Not in recordings.
struct MemoryUse {
  std::optional<std::uint64_t> rss_bytes;
  std::optional<std::uint64_t> pss_bytes;
  std::uint64_t pss_ns = 0;  // CLOCK_MONOTONIC
};

// The data of the table.
struct Model {
  cow::Measurement measurement;
  std::map<ProcessId, cow::ForkCopies> copies;  // of each process
  History history;
  std::map<ProcessId, MemoryUse> memory;

  // Takes a newer measurement.
  void update(cow::Measurement newer);
};

enum class Column : std::uint8_t {
  pid,
  copied,
  rate,
  fresh,
  at_fork,
  shared,
  curve,
  reused,
  zero,
  rss,
  pss,
  command
};

struct ColumnInfo {
  Column column;
  std::string_view title;
  int width;  // minimum, for the command
  bool is_usual;
  std::string_view meaning;
};

// In the order of the table.
inline constexpr std::array kColumns = {
    ColumnInfo{Column::pid, "PID", 7, true, "the process, in cowtop's own PID namespace"},
    ColumnInfo{Column::copied, "COPIED", 8, true, "MiB that it has copied of what it shared"},
    ColumnInfo{Column::rate, "MiB/s", 7, true, "copied per second, between the last two looks"},
    ColumnInfo{Column::fresh, "NEW", 7, true, "MiB of its own that it touched first"},
    ColumnInfo{Column::at_fork, "AT FORK", 8, true,
               "MiB that it shared at its fork, or when cowtop came"},
    ColumnInfo{Column::shared, "SHARED", 7, true, "of that, how much it has not copied"},
    ColumnInfo{Column::curve, "CURVE", static_cast<int>(History::kPoints), true,
               "SHARED over the last looks"},
    ColumnInfo{Column::reused, "REUSED", 8, false,
               "pages that the last sharer took over, not copied"},
    ColumnInfo{Column::zero, "ZERO", 7, false, "writes over the shared page of zeros"},
    ColumnInfo{Column::rss, "RSS", 8, false, "MiB of it that are resident, shared or not"},
    ColumnInfo{Column::pss, "PSS", 12, false,
               "RSS with each shared page divided by its sharers, and the age of that"},
    ColumnInfo{Column::command, "COMMAND", 14, true, "its name"},
};

const ColumnInfo& info(Column column);

// Returns the text of a cell; empty for the curve and the command.
std::string cell(Column column, const cow::ProcessCopies& process, const Model& model);

// Returns the sort key of a cell; nullopt: unknown, sorted last.  The command has none.
std::optional<double> sort_value(Column column, const cow::ProcessCopies& process,
                                 const Model& model);

// Returns one character for each value of 0 to 1.
std::string bars(const std::vector<double>& values, bool unicode);

}  // namespace cowshed::cowtop::live
