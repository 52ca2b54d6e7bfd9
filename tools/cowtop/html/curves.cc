#include <algorithm>
#include <cmath>
#include <ranges>

#include <cowshed/cow/fork_copies.h>
#include <cowshed/tools/cowtop/html/curves.h>
#include <cowshed/tools/cowtop/recording/json_fields.h>

namespace cowshed::cowtop {
namespace {

constexpr std::size_t kMostMoments = 300;
constexpr std::size_t kFewestMoments = 20;
constexpr std::size_t kMostPoints = 2'000'000;

// Only once a program has ended do samples tell that some copies were made while it did.  They are
// left out of all moments, so that no curve falls.
template <class Point>
void leave_out_later(std::vector<Point>& points, std::optional<std::uint64_t> Point::* pages) {
  std::optional<std::uint64_t> least;
  for (Point& each : points | std::views::reverse)
    if (each.*pages)
      least = each.*pages = std::min((each.*pages).value(), least.value_or(UINT64_MAX));
}

}  // namespace

Curves::Id Curves::id_of(const cow::ProcessCopies& process) {
  return {process.id(), process.processes > 1};
}

const Curves::Copied* Curves::Moment::find(const Id& process) const {
  const auto found = std::ranges::lower_bound(copied, process, {}, &Copied::process);
  return found != copied.end() && found->process == process ? &*found : nullptr;
}

Curves::Moment Curves::moment_of(const cow::Measurement& measurement) {
  Moment moment;
  moment.at_s = measurement.duration_s;
  moment.copied.reserve(measurement.processes.size());
  const std::vector<cow::ForkCopies> copies = cow::fork_copies(measurement);
  cow::ForkCopies together;
  for (std::size_t i = 0; i < copies.size(); ++i) {
    const Pages pages = copies[i].copied_pages;
    moment.copied.push_back(
        {id_of(measurement.processes[i]), pages, copies[i].still_shared_ratio()});
    if (pages) moment.total = moment.total.value_or(0) + *pages;
    if (!copies[i].still_shared_bytes) continue;
    together.shared_bytes = together.shared_bytes.value_or(0) + *copies[i].shared_bytes;
    together.still_shared_bytes =
        together.still_shared_bytes.value_or(0) + *copies[i].still_shared_bytes;
  }
  moment.still_shared = together.still_shared_ratio();
  std::ranges::sort(moment.copied, {}, &Copied::process);
  return moment;
}

void Curves::add(const Json& document) {
  if (added_++ % stride_ != 0) return;
  const auto measurement = measurement_of(document);
  if (!measurement) return;  // the reader of the last document reports the error
  moments_.push_back(moment_of(*measurement));
  const auto is_too_much = [this] {
    return moments_.size() > kMostMoments ||
           (moments_.size() > kFewestMoments &&
            moments_.size() * moments_.back().copied.size() > kMostPoints);
  };
  while (is_too_much()) {
    stride_ *= 2;
    for (std::size_t i = 1; 2 * i < moments_.size(); ++i) std::swap(moments_[i], moments_[2 * i]);
    moments_.resize((moments_.size() + 1) / 2);
  }
}

// `process` must be in the last moment.
Json Curves::curve(const std::vector<Moment>& moments, const Id& process) {
  std::size_t begin = 0;
  while (moments[begin].find(process) == nullptr) ++begin;
  std::vector<Copied> points;
  for (std::size_t i = begin; i < moments.size(); ++i) {
    const Copied* copied = moments[i].find(process);
    points.push_back(copied == nullptr ? Copied{process, {}, {}} : *copied);
  }
  leave_out_later(points, &Copied::pages);
  const auto values = [](const Copied& point) {
    return std::pair(point.pages, point.still_shared);
  };
  while (points.size() > 1 && values(points.back()) == values(points[points.size() - 2]))
    points.pop_back();
  Json copied = Json::array();
  Json still_shared = Json::array();
  for (const Copied& each : points) {
    copied.push_back(or_null(each.pages));
    still_shared.push_back(or_null(each.still_shared));
  }
  return {
      {"begin", begin}, {"copied", std::move(copied)}, {"still_shared", std::move(still_shared)}};
}

Json Curves::json(const cow::Measurement& end, const std::vector<std::size_t>& processes) const {
  std::vector<Moment> moments = moments_;
  Moment last = moment_of(end);
  // It may be the last document itself.
  if (!moments.empty() && moments.back().at_s >= last.at_s) moments.pop_back();
  moments.push_back(std::move(last));
  leave_out_later(moments, &Moment::total);
  Json at = Json::array();
  Json total = Json::array();
  Json still_shared = Json::array();
  for (const Moment& moment : moments) {
    constexpr double kPerSecond = 1000;
    at.push_back(std::round(moment.at_s * kPerSecond) / kPerSecond);
    total.push_back(or_null(moment.total));
    still_shared.push_back(or_null(moment.still_shared));
  }
  Json curves = Json::array();
  for (const std::size_t process : processes) {
    Json of_it = {{"process", process}};
    of_it.update(curve(moments, id_of(end.processes[process])));
    curves.push_back(std::move(of_it));
  }
  return {{"at_s", std::move(at)},
          {"total", std::move(total)},
          {"still_shared", std::move(still_shared)},
          {"of", std::move(curves)}};
}

}  // namespace cowshed::cowtop
