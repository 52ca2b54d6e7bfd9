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

Json or_null(const std::optional<std::uint64_t>& value) {
  return value ? Json(*value) : Json(nullptr);
}

}  // namespace

// As a document and a measurement have it.
struct Curves::Process {
  std::uint64_t processes = 1;
  std::int64_t pid = 0;
  std::uint64_t start_ns = 0;
  std::optional<std::uint64_t> copied_anon_pages;
  std::optional<std::uint64_t> copied_file_pages;

  template <class Io>
  friend void describe(Io& io, typename Io::template Ref<Process> process) {
    io.field("processes", process.processes);
    io.field("pid", process.pid);
    io.field("start_ns", process.start_ns);
    io.field("copied_anon_pages", process.copied_anon_pages);
    io.field("copied_file_pages", process.copied_file_pages);
  }
  Copied copied() const {
    Pages pages;
    if (copied_anon_pages && copied_file_pages) pages = *copied_anon_pages + *copied_file_pages;
    return {id(), pages};
  }
  Id id() const { return {start_ns, pid, processes > 1}; }
};

Curves::Process Curves::process_of(const cow::ProcessCopies& process) {
  return {process.processes, process.pid, process.start_ns, process.copied_anon_pages,
          process.copied_file_pages};
}

void Curves::finish(Moment& moment) {
  for (const Copied& each : moment.copied)
    if (each.pages) moment.total = moment.total.value_or(0) + *each.pages;
  std::sort(moment.copied.begin(), moment.copied.end(),
            [](const Copied& a, const Copied& b) { return a.process < b.process; });
}

const Curves::Copied* Curves::Moment::find(const Id& process) const {
  const auto found =
      std::lower_bound(copied.begin(), copied.end(), process,
                       [](const Copied& each, const Id& id) { return each.process < id; });
  return found != copied.end() && found->process == process ? &*found : nullptr;
}

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
    moment.copied.push_back(process.copied());
  }
  finish(moment);
  return moment;
}

Curves::Moment Curves::moment_of(const cow::Measurement& measurement) {
  Moment moment;
  moment.at_s = measurement.duration_s;
  moment.copied.reserve(measurement.processes.size());
  for (const cow::ProcessCopies& process : measurement.processes)
    moment.copied.push_back(process_of(process).copied());
  finish(moment);
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
    for (std::size_t i = 1; 2 * i < moments_.size(); ++i) std::swap(moments_[i], moments_[2 * i]);
    moments_.resize((moments_.size() + 1) / 2);
  }
}

// Of one that the last moment has.
Json Curves::curve(const std::vector<Moment>& moments, const Id& process) {
  std::size_t begin = 0;
  while (moments[begin].find(process) == nullptr) ++begin;
  std::vector<Pages> pages;
  for (std::size_t i = begin; i < moments.size(); ++i) {
    const Copied* copied = moments[i].find(process);
    pages.push_back(copied == nullptr ? std::nullopt : copied->pages);
  }
  while (pages.size() > 1 && pages.back() == pages[pages.size() - 2]) pages.pop_back();
  Json copied = Json::array();
  for (const Pages& each : pages) copied.push_back(or_null(each));
  return {{"begin", begin}, {"copied", std::move(copied)}};
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
    total.push_back(or_null(moment.total));
  }
  Json curves = Json::array();
  for (const std::size_t process : processes) {
    Json of_it = {{"process", process}};
    of_it.update(curve(moments, process_of(end.processes[process]).id()));
    curves.push_back(std::move(of_it));
  }
  return {{"at_s", std::move(at)}, {"total", std::move(total)}, {"of", std::move(curves)}};
}

}  // namespace cowshed::cowtop
