#include <algorithm>
#include <cmath>
#include <compare>
#include <iterator>
#include <map>
#include <set>
#include <utility>

#include <cowshed/cow/subtrees.h>
#include <cowshed/tools/cowtop/estimate.h>

namespace cowshed::cowtop {
namespace {

constexpr std::size_t kMostFrozen = 3;

bool may_be_worker(const cow::ProcessCopies& process) {
  return process.role == cow::Role::child && !process.shares_memory && process.execs == 0 &&
         process.copied_bytes() && process.shared_at_fork_bytes.value_or(0) > 0;
}

struct Worker {
  const cow::ProcessCopies* process;
  std::size_t number;  // of the process in the measurement
  std::uint64_t start_ns;
  std::uint64_t end_ns;
  std::uint64_t lived_ns() const { return end_ns - start_ns; }
  std::uint64_t shared_bytes() const { return *process->shared_at_fork_bytes / process->processes; }
};

// Sampled, a start is rounded down to a tick, and an end is what a later look finds: that must not
// make one and who takes its place two at once.
Worker worker_of(const cow::Measurement& measurement, std::size_t number) {
  const cow::ProcessCopies& process = measurement.processes[number];
  constexpr std::uint64_t kTickNs = 10'000'000;
  std::uint64_t start = process.start_ns;
  std::uint64_t end = process.end_ns.value_or(measurement.taken_ns);
  if (!measurement.exact && process.end_ns) {
    start += kTickNs;
    if (process.memory) end = process.memory->sampled_ns;
  }
  return {&process, number, start, std::max(end, start + 1)};
}

std::vector<Worker> workers_of(const cow::Measurement& measurement, std::uint64_t shared_bytes) {
  std::vector<Worker> result;
  for (std::size_t i = 0; i < measurement.processes.size(); ++i) {
    const cow::ProcessCopies& process = measurement.processes[i];
    if (may_be_worker(process) &&
        *process.shared_at_fork_bytes / process.processes >= shared_bytes / 2) {
      result.push_back(worker_of(measurement, i));
    }
  }
  return result;
}

// What workers share, by parent.
class SharedMemory {
 public:
  explicit SharedMemory(const cow::Measurement& measurement)
      : parents_(cow::parents(measurement.processes)) {}

  // `count` workers that are alike.
  void add(const Worker& worker, std::uint64_t count) {
    const std::size_t parent = parents_[worker.number];
    Family& family = families_[parent == worker.number ? kNotSeen : parent];
    family.bytes = std::max(family.bytes, worker.shared_bytes());
    family.workers += count;
    inherited_[worker.number] = worker.shared_bytes();
  }
  std::uint64_t bytes() const {
    std::uint64_t bytes = 0;
    for (const auto& [parent, family] : families_) {
      const auto inherited = inherited_.find(parent);
      bytes += family.bytes -
               (inherited == inherited_.end() ? 0 : std::min(inherited->second, family.bytes));
    }
    return bytes;
  }
  std::uint64_t bytes_by_spawn() const {
    std::uint64_t bytes = this->bytes();
    for (const auto& [parent, family] : families_) bytes += family.workers * family.bytes;
    return bytes;
  }

 private:
  static constexpr std::size_t kNotSeen = ~std::size_t{0};
  struct Family {
    std::uint64_t bytes = 0;  // the most that one of them shared
    std::uint64_t workers = 0;
  };
  std::vector<std::size_t> parents_;
  std::map<std::size_t, Family> families_;          // by parent
  std::map<std::size_t, std::uint64_t> inherited_;  // by worker
};

// The most that lived at the same time; of several moments, when these had the most copies.
std::vector<Worker> most_at_once(const std::vector<Worker>& workers) {
  struct Change {
    std::int64_t workers = 0;
    std::int64_t bytes = 0;
    // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 misreads it
    auto operator<=>(const Change&) const = default;
  };
  std::map<std::uint64_t, Change> changes;
  for (const Worker& worker : workers) {
    const auto bytes = static_cast<std::int64_t>(*worker.process->copied_bytes());
    for (const auto& [ns, sign] : {std::pair(worker.start_ns, 1), std::pair(worker.end_ns, -1)}) {
      Change& change = changes[ns];
      change.workers += sign;
      change.bytes += sign * bytes;
    }
  }
  Change now;
  Change most;
  std::uint64_t most_ns = 0;
  for (const auto& [ns, change] : changes) {
    now.workers += change.workers;
    now.bytes += change.bytes;
    if (now > most) {
      most = now;
      most_ns = ns;
    }
  }
  std::vector<Worker> result;
  std::copy_if(workers.begin(), workers.end(), std::back_inserter(result), [&](const Worker& each) {
    return each.start_ns <= most_ns && most_ns < each.end_ns;
  });
  return result;
}

// How many lived at once on average, if those that were added up lived as long as `singles`.
std::uint64_t mean_at_once(const std::vector<Worker>& workers, const std::vector<Worker>& singles) {
  std::uint64_t count = 0;
  std::uint64_t start = workers.front().start_ns;
  std::uint64_t end = 0;
  for (const Worker& worker : workers) {
    count += worker.process->processes;
    start = std::min(start, worker.start_ns);
    end = std::max(end, worker.end_ns);
  }
  double lived = 0;
  for (const Worker& worker : singles) lived += static_cast<double>(worker.lived_ns());
  lived *= static_cast<double>(count) / static_cast<double>(singles.size());
  const auto mean = std::llround(lived / static_cast<double>(end - start));
  return std::clamp<std::uint64_t>(static_cast<std::uint64_t>(mean), 1, count);
}

// Copies of those that count for the estimate.
class Copies {
 public:
  // So much of what it, or those that were added up, copied.
  void add(const cow::ProcessCopies& process, double part) {
    const auto of = [part](std::uint64_t count) {
      return static_cast<std::uint64_t>(std::llround(part * static_cast<double>(count)));
    };
    bytes_ += of(*process.copied_bytes());
    std::set<std::string> told_by_object;
    if (process.objects) {
      for (const cow::ObjectCopies& object : *process.objects) {
        const std::string& name = object.name.empty() ? object.type : object.name;
        pages_["object '" + name + "' of arena '" + object.arena + "'"] += of(object.copied_pages);
        if (object.copied_pages > 0) told_by_object.insert("arena " + object.arena);
      }
    }
    if (process.sampled) {
      for (const cow::MappingCopies& mapping : process.sampled->mappings) {
        if (told_by_object.contains(mapping.name)) continue;
        pages_["mapping '" + mapping.name + "'"] += of(mapping.estimated_copies);
      }
    }
  }
  std::uint64_t bytes() const { return bytes_; }
  std::vector<Estimate::Frozen> hottest() const {
    std::vector<Estimate::Frozen> result;
    for (const auto& [name, count] : pages_) {
      if (count > 0) result.push_back({name, count * cow::kPageSize});
    }
    std::stable_sort(result.begin(), result.end(),
                     [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
    if (result.size() > kMostFrozen) result.resize(kMostFrozen);
    return result;
  }

 private:
  std::uint64_t bytes_ = 0;
  std::map<std::string, std::uint64_t> pages_;
};

}  // namespace

std::uint64_t Estimate::bytes_with_workers(std::uint64_t times) const {
  return shared_bytes + times * copied_bytes;
}

std::optional<Estimate> estimate(const cow::Measurement& measurement) {
  Estimate result;
  std::uint64_t most_shared = 0;
  for (const cow::ProcessCopies& process : measurement.processes) {
    if (!may_be_worker(process)) continue;
    most_shared = std::max(most_shared, *process.shared_at_fork_bytes / process.processes);
  }
  const std::vector<Worker> workers = workers_of(measurement, most_shared);
  if (workers.empty()) return std::nullopt;
  std::vector<Worker> singles;
  std::vector<Worker> sums;
  std::partition_copy(workers.begin(), workers.end(), std::back_inserter(singles),
                      std::back_inserter(sums),
                      [](const Worker& each) { return each.process->processes == 1; });
  if (singles.empty()) return std::nullopt;
  const std::vector<Worker> known = most_at_once(singles);
  Copies copies;
  SharedMemory shared(measurement);
  for (const Worker& worker : known) {
    copies.add(*worker.process, 1);
    shared.add(worker, 1);
  }
  result.workers = known.size();
  if (const std::uint64_t mean = sums.empty() ? 0 : mean_at_once(workers, singles);
      mean > result.workers) {
    std::uint64_t count = 0;
    for (const Worker& sum : sums) count += sum.process->processes;
    const double part = static_cast<double>(mean - result.workers) / static_cast<double>(count);
    std::uint64_t left = mean - result.workers;
    for (const Worker& sum : sums) {
      copies.add(*sum.process, part);
      const auto alike = static_cast<std::uint64_t>(
          std::llround(part * static_cast<double>(sum.process->processes)));
      shared.add(sum, std::min(alike, left));
      left -= std::min(alike, left);
    }
    result.workers = mean;
  }
  result.shared_bytes = shared.bytes();
  result.bytes_by_spawn = shared.bytes_by_spawn();
  result.copied_bytes = copies.bytes();
  result.frozen = copies.hottest();
  return result;
}

}  // namespace cowshed::cowtop
