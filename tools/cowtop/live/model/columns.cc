#include <algorithm>
#include <cmath>
#include <fmt/format.h>

#include <cowshed/tools/cowtop/live/model/columns.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop::live {
namespace {

using cow::internal::number;

constexpr double kNsPerSecond = 1e9;

const MemoryUse* memory_of(const cow::ProcessCopies& process, const Model& model) {
  const auto found = model.memory.find(process.id());
  return found == model.memory.end() ? nullptr : &found->second;
}

}  // namespace

void Model::update(cow::Measurement newer) {
  const std::vector<cow::ForkCopies> each = cow::fork_copies(newer);
  copies.clear();
  for (std::size_t i = 0; i < each.size(); ++i) copies[newer.processes[i].id()] = each[i];
  history.add(newer, each);
  measurement = std::move(newer);
}

const ColumnInfo& info(Column column) { return kColumns.at(static_cast<std::size_t>(column)); }

std::string cell(Column column, const cow::ProcessCopies& process, const Model& model) {
  if (column == Column::curve || column == Column::command) return {};
  const auto value = sort_value(column, process, model);
  if (!value) return kUnknown;
  if (column == Column::pid || info(column).count != nullptr) return fmt::format("{:.0f}", *value);
  if (info(column).figure != nullptr) return figure_text(*info(column).figure, value);
  if (column != Column::pss) return fmt::format("{:.1f}", *value / kMiB);
  const std::uint64_t now_ns = model.measurement.taken_ns;
  const auto age_ns = now_ns - std::min(memory_of(process, model)->pss_ns, now_ns);
  return fmt::format("{:.1f} {:>3.0f}s", *value / kMiB, static_cast<double>(age_ns) / kNsPerSecond);
}

std::optional<double> sort_value(Column column, const cow::ProcessCopies& process,
                                 const Model& model) {
  const MemoryUse* memory = memory_of(process, model);
  const cow::ForkCopies& copies = model.copies.at(process.id());
  if (const cow::Figure* figure = info(column).figure)
    return figure->of(model.measurement, process, copies);
  if (const cow::CountInfo* count = info(column).count) return number(process.*count->count);
  switch (column) {
    case Column::pid: return process.pid;
    case Column::rate: return model.history.copied_per_second(process);
    case Column::curve: return copies.still_shared_ratio();
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
