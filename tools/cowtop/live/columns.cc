#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include <cowshed/tools/cowtop/figures.h>
#include <cowshed/tools/cowtop/live/columns.h>

namespace cowshed::cowtop::live {
namespace {

constexpr double kNsPerSecond = 1e9;

const MemoryUse* memory_of(const cow::ProcessCopies& process, const Model& model) {
  const auto found = model.memory.find(process.id());
  return found == model.memory.end() ? nullptr : &found->second;
}

std::string pss_text(const MemoryUse* memory, std::uint64_t now_ns) {
  if (!memory || !memory->pss_bytes) return kUnknown;
  const auto age_ns = now_ns - std::min(memory->pss_ns, now_ns);
  return fmt::format("{} {:>3.0f}s", mebibytes(memory->pss_bytes),
                     static_cast<double>(age_ns) / kNsPerSecond);
}

std::optional<double> number(const std::optional<std::uint64_t>& value) {
  if (!value) return std::nullopt;
  return static_cast<double>(*value);
}

}  // namespace

const ColumnInfo& info(Column column) { return kColumns.at(static_cast<std::size_t>(column)); }

std::string cell(Column column, const cow::ProcessCopies& process, const Model& model) {
  const MemoryUse* memory = memory_of(process, model);
  switch (column) {
    case Column::pid: return fmt::format("{}", process.pid);
    case Column::copied: return mebibytes(process.copied_bytes());
    case Column::rate: {
      const auto rate = model.history.copied_per_second(process);
      return rate ? fmt::format("{:.1f}", *rate / kMiB) : kUnknown;
    }
    case Column::at_fork: return mebibytes(shown_at_fork(process));
    case Column::shared: return percent(still_shared(process));
    case Column::reused: return count(process.reused_pages);
    case Column::zero: return count(process.zero_page_writes);
    case Column::rss: return memory ? mebibytes(memory->rss_bytes) : kUnknown;
    case Column::pss: return pss_text(memory, model.measurement.taken_ns);
    case Column::curve:
    case Column::command: break;
  }
  return {};
}

std::optional<double> sort_value(Column column, const cow::ProcessCopies& process,
                                 const Model& model) {
  const MemoryUse* memory = memory_of(process, model);
  switch (column) {
    case Column::pid: return process.pid;
    case Column::copied: return number(process.copied_pages());
    case Column::rate: return model.history.copied_per_second(process);
    case Column::at_fork: return number(shown_at_fork(process));
    case Column::shared:
    case Column::curve: return still_shared(process);
    case Column::reused: return number(process.reused_pages);
    case Column::zero: return number(process.zero_page_writes);
    case Column::rss: return memory ? number(memory->rss_bytes) : std::nullopt;
    case Column::pss: return memory ? number(memory->pss_bytes) : std::nullopt;
    case Column::command: break;
  }
  return std::nullopt;
}

std::string bars(const std::vector<double>& values, bool unicode) {
  constexpr std::array kBlocks = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  constexpr std::array kAscii = {"_", ".", ":", "-", "=", "+", "*", "#"};
  std::string text;
  for (const double value : values) {
    const double last = static_cast<double>(kBlocks.size() - 1);
    const auto step = static_cast<std::size_t>(std::lround(std::clamp(value, 0.0, 1.0) * last));
    text += unicode ? kBlocks.at(step) : kAscii.at(step);
  }
  return text;
}

}  // namespace cowshed::cowtop::live
