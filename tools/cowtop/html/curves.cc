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

// Of a process of the document, what a point is made of.
struct Memory {
  std::uint64_t shared_bytes = 0;
  std::uint64_t private_bytes = 0;
};

struct Process {
  std::optional<std::uint64_t> copied_anon_pages;
  std::optional<std::uint64_t> copied_file_pages;
  std::optional<Memory> memory;
};

template <class Io>
void describe(Io& io, typename Io::template Ref<Memory> memory) {
  io.field("shared_bytes", memory.shared_bytes);
  io.field("private_bytes", memory.private_bytes);
}

template <class Io>
void describe(Io& io, typename Io::template Ref<Process> process) {
  io.field("copied_anon_pages", process.copied_anon_pages);
  io.field("copied_file_pages", process.copied_file_pages);
  io.field("memory", process.memory);
}

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

}  // namespace

Curves::Moment Curves::moment_of(const Json& document) {
  Moment moment;
  FieldReader io(document, "");
  io.field("duration_s", moment.at_s);
  const Json* processes = io.find("processes");
  if (processes == nullptr) return moment;
  moment.processes.reserve(processes->size());
  for (const Json& each : *processes) {
    Process process;
    FieldReader::read(each, "", process);
    Point& point = moment.processes.emplace_back();
    if (process.copied_anon_pages && process.copied_file_pages) {
      point.copied_pages = *process.copied_anon_pages + *process.copied_file_pages;
    }
    if (process.memory) {
      point.shared_bytes = process.memory->shared_bytes;
      point.private_bytes = process.memory->private_bytes;
    }
  }
  return moment;
}

Curves::Moment Curves::moment_of(const cow::Measurement& measurement) {
  Moment moment;
  moment.at_s = measurement.duration_s;
  moment.processes.reserve(measurement.processes.size());
  for (const cow::ProcessCopies& process : measurement.processes) {
    Point& point = moment.processes.emplace_back();
    point.copied_pages = process.copied_pages();
    if (process.memory) {
      point.shared_bytes = process.memory->shared_bytes;
      point.private_bytes = process.memory->private_bytes;
    }
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
            moments_.size() * moments_.back().processes.size() > kMostPoints);
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
  while (moments[begin].processes.size() <= process) ++begin;
  std::size_t end = moments.size();
  while (end - begin > 1 &&
         moments[end - 1].processes[process] == moments[end - 2].processes[process])
    --end;
  Json copied = Json::array();
  Json shared = Json::array();
  Json unshared = Json::array();
  for (std::size_t i = begin; i < end; ++i) {
    const Point& point = moments[i].processes[process];
    copied.push_back(or_null(point.copied_pages));
    shared.push_back(or_null(point.shared_bytes));
    unshared.push_back(or_null(point.private_bytes));
  }
  return {{"process", process},
          {"begin", begin},
          {"copied", std::move(copied)},
          {"shared", std::move(shared)},
          {"private", std::move(unshared)}};
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
    std::optional<std::uint64_t> sum;
    for (const Point& point : moment.processes) {
      if (point.copied_pages) sum = sum.value_or(0) + *point.copied_pages;
    }
    total.push_back(or_null(sum));
  }
  Json curves = Json::array();
  for (const std::size_t process : processes) curves.push_back(curve(moments, process));
  return {{"at_s", std::move(at)}, {"total", std::move(total)}, {"of", std::move(curves)}};
}

}  // namespace cowshed::cowtop
