#include <algorithm>

#include <cowshed/tools/cowtop/live/model/history.h>

namespace cowshed::cowtop::live {
namespace {

constexpr double kNsASecond = 1e9;

}  // namespace

void History::add(const cow::Measurement& measurement, const std::vector<cow::ForkCopies>& copies) {
  taken_ns_ = measurement.taken_ns;
  const auto duration_ns = static_cast<std::uint64_t>(measurement.duration_s * kNsASecond);
  begin_ns_ = taken_ns_ - std::min(duration_ns, taken_ns_);
  for (std::size_t i = 0; i < copies.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    Process& known = processes_[process.id()];
    known.seen_ns = taken_ns_;
    if (!process.alive && known.ended_ns == 0)
      known.ended_ns = process.end_ns.value_or(measurement.taken_ns);
    auto& points = known.points;
    if (!points.empty() && points.back().taken_ns == taken_ns_) points.pop_back();
    points.push_back({taken_ns_, copies[i].copied_bytes(), copies[i].still_shared_ratio()});
    if (points.size() > kPoints) points.pop_front();
    if (process.execs == 0) continue;
    for (Point& point : points) point.still_shared.reset();
  }
  std::erase_if(processes_,
                [this](const auto& known) { return known.second.seen_ns != taken_ns_; });
}

std::optional<double> History::copied_per_second(const cow::ProcessCopies& process) const {
  // The copies of a sum were made before.
  if (process.processes > 1) return std::nullopt;
  const auto found = processes_.find(process.id());
  if (found == processes_.end() || !found->second.points.back().copied_bytes) return std::nullopt;
  const auto& points = found->second.points;
  Point before{std::max(process.start_ns, begin_ns_), 0, std::nullopt};
  if (points.size() > 1) before = points[points.size() - 2];
  const Point& now = points.back();
  if (!before.copied_bytes || now.taken_ns <= before.taken_ns ||
      *now.copied_bytes < *before.copied_bytes) {
    return std::nullopt;
  }
  return static_cast<double>(*now.copied_bytes - *before.copied_bytes) * kNsASecond /
         static_cast<double>(now.taken_ns - before.taken_ns);
}

std::vector<double> History::curve(ProcessId id) const {
  std::vector<double> curve;
  const auto found = processes_.find(id);
  if (found == processes_.end()) return curve;
  for (const Point& point : found->second.points)
    if (point.still_shared) curve.push_back(*point.still_shared);
  return curve;
}

std::uint64_t History::ended_ns(ProcessId id) const {
  const auto found = processes_.find(id);
  return found == processes_.end() ? 0 : found->second.ended_ns;
}

}  // namespace cowshed::cowtop::live
