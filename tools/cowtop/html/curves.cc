#include <algorithm>
#include <cmath>
#include <utility>

#include <cowshed/tools/cowtop/html/curves.h>
#include <cowshed/tools/cowtop/json_fields.h>

namespace cowshed::cowtop {
namespace {

constexpr std::size_t kMostMoments = 300;
constexpr std::size_t kFewestMoments = 20;
constexpr std::size_t kMostPoints = 2'000'000;

// Of a process of the document.
struct Process {
  std::optional<std::uint64_t> copied_anon_pages;
  std::optional<std::uint64_t> copied_file_pages;
};

template <class Io>
void describe(Io& io, typename Io::template Ref<Process> process) {
  io.field("copied_anon_pages", process.copied_anon_pages);
  io.field("copied_file_pages", process.copied_file_pages);
}

Json or_null(const std::optional<std::uint64_t>& value) {
  return value ? Json(*value) : Json(nullptr);
}

}  // namespace

Curves::Moment Curves::moment_of(const Json& document) {
  Moment moment;
  FieldReader io(document, "");
  io.field("duration_s", moment.at_s);
  const Json* processes = io.find("processes");
  if (processes == nullptr) return moment;
  moment.copied.reserve(processes->size());
  for (const Json& each : *processes) {
    Process process;
    FieldReader::read(each, "", process);
    Pages& pages = moment.copied.emplace_back();
    if (process.copied_anon_pages && process.copied_file_pages) {
      pages = *process.copied_anon_pages + *process.copied_file_pages;
    }
  }
  return moment;
}

Curves::Moment Curves::moment_of(const cow::Measurement& measurement) {
  Moment moment;
  moment.at_s = measurement.duration_s;
  moment.copied.reserve(measurement.processes.size());
  for (const cow::ProcessCopies& process : measurement.processes) {
    moment.copied.push_back(process.copied_pages());
  }
  return moment;
}

void Curves::add(const Json& document) {
  if (added_++ % stride_ != 0) return;
  try {
    moments_.push_back(moment_of(document));
  } catch (const JsonFieldError&) {
    return;  // whoever reads the last document says so
  }
  const auto is_too_much = [this] {
    return moments_.size() > kMostMoments ||
           (moments_.size() > kFewestMoments &&
            moments_.size() * moments_.back().copied.size() > kMostPoints);
  };
  while (is_too_much()) {
    stride_ *= 2;
    for (std::size_t i = 1; 2 * i < moments_.size(); ++i) {
      std::swap(moments_[i], moments_[2 * i]);
    }
    moments_.resize((moments_.size() + 1) / 2);
  }
}

Json Curves::curve(const std::vector<Moment>& moments, std::size_t process) {
  std::size_t begin = 0;
  while (moments[begin].copied.size() <= process) ++begin;
  std::size_t end = moments.size();
  while (end - begin > 1 && moments[end - 1].copied[process] == moments[end - 2].copied[process]) {
    --end;
  }
  Json copied = Json::array();
  for (std::size_t i = begin; i < end; ++i) copied.push_back(or_null(moments[i].copied[process]));
  return {{"process", process}, {"begin", begin}, {"copied", std::move(copied)}};
}

Json Curves::json(const cow::Measurement& end, const std::vector<std::size_t>& processes) const {
  std::vector<Moment> moments = moments_;
  Moment last = moment_of(end);
  // The last document itself, perhaps.
  if (!moments.empty() && moments.back().at_s >= last.at_s) moments.pop_back();
  moments.push_back(std::move(last));
  Json at = Json::array();
  Json total = Json::array();
  for (const Moment& moment : moments) {
    constexpr double kPerSecond = 1000;
    at.push_back(std::round(moment.at_s * kPerSecond) / kPerSecond);
    Pages sum;
    for (const Pages& pages : moment.copied) {
      if (pages) sum = sum.value_or(0) + *pages;
    }
    total.push_back(or_null(sum));
  }
  Json curves = Json::array();
  for (const std::size_t process : processes) curves.push_back(curve(moments, process));
  return {{"at_s", std::move(at)}, {"total", std::move(total)}, {"of", std::move(curves)}};
}

}  // namespace cowshed::cowtop
