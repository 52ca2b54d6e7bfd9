#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include <cowshed/cow/figures.h>
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

// The figures and counts that are columns.
inline constexpr auto kFigureColumns =
    std::ranges::count_if(cow::kFigures, [](const auto& each) { return !each.title.empty(); });
inline constexpr auto kCountColumns =
    std::ranges::count_if(cow::kCounts, [](const auto& each) { return *each.column != '\0'; });

// In the order of the table: figures follow the PID, and counts the curve.
enum class Column : std::uint8_t {
  pid,
  rate = 1 + kFigureColumns,
  curve,
  rss = curve + 1 + kCountColumns,
  pss,
  command
};

struct ColumnInfo {
  std::string_view title = {};
  int width = 0;  // minimum, for the command
  bool is_usual = false;
  std::string_view meaning = {};
  const cow::Figure* figure = nullptr;
  const cow::CountInfo* count = nullptr;
};

using ColumnInfos = std::array<ColumnInfo, static_cast<std::size_t>(Column::command) + 1>;

constexpr ColumnInfos all_columns() {
  ColumnInfos all;
  const auto at = [&](Column column) -> ColumnInfo& {
    return all.at(static_cast<std::size_t>(column));
  };
  at(Column::pid) = {"PID", 7, true, "The process, in cowtop's own PID namespace."};
  std::size_t next = 1;
  for (const cow::Figure& each : cow::kFigures) {
    if (each.title.empty()) continue;
    const int width = each.unit == cow::Unit::bytes ? 8 : 7;
    all.at(next++) = {each.title, std::max(width, static_cast<int>(each.title.size())),
                      each.is_usual, cow::first_sentence(each.meaning), &each};
  }
  at(Column::rate) = {"MiB/s", 7, true, "COPIED per second, between the last two looks."};
  at(Column::curve) = {"CURVE", static_cast<int>(History::kPoints), true,
                       "STILL SHARED over the last looks."};
  next = static_cast<std::size_t>(Column::curve) + 1;
  for (const cow::CountInfo& each : cow::kCounts)
    if (*each.column != '\0')
      all.at(next++) = {each.column, 8, false, cow::first_sentence(each.meaning), nullptr, &each};
  at(Column::rss) = {"RSS", 8, false, "Its resident memory, shared or not, in MiB."};
  at(Column::pss) = {"PSS", 12, false,
                     "RSS with each shared page divided by its sharers, and the age of that."};
  at(Column::command) = {"COMMAND", 12, true, "Its name."};
  return all;
}
inline constexpr ColumnInfos kColumns = all_columns();

// Of a figure or a count.
constexpr Column column_of(std::string_view title) {
  return static_cast<Column>(std::ranges::find(kColumns, title, &ColumnInfo::title) -
                             kColumns.begin());
}

const ColumnInfo& info(Column column);

// Returns the text of a cell; empty for the curve and the command.
std::string cell(Column column, const cow::ProcessCopies& process, const Model& model);

// Returns the sort key of a cell; nullopt: unknown, sorted last.  The command has none.
std::optional<double> sort_value(Column column, const cow::ProcessCopies& process,
                                 const Model& model);

// Returns one character for each value of 0 to 1.
std::string bars(const std::vector<double>& values, bool unicode);

}  // namespace cowshed::cowtop::live
