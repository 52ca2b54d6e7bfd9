#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cowshed/tools/search/report.h>

namespace cowshed::search {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kWidest = 110;

double mib(std::uint64_t bytes) { return static_cast<double>(bytes) / (1024 * 1024); }

// Cut between characters: the second and later bytes of one are 10xxxxxx.
std::string shorten(const std::string& line) {
  if (line.size() <= kWidest) {
    return line;
  }
  std::size_t end = kWidest - 3;
  while (end > 0 && (static_cast<unsigned char>(line[end]) & 0xC0U) == 0x80U) {
    --end;
  }
  return line.substr(0, end) + "...";
}

std::string worker_line(const WorkerRun& worker, std::uint64_t index_bytes) {
  const double share = index_bytes == 0 ? 0
                                        : 100 * static_cast<double>(worker.private_growth()) /
                                              static_cast<double>(index_bytes);
  std::string line = fmt::format(
      "worker {}: fork {:.0f} us, busy {:.2f} s, private memory {:.1f} MiB, grown by {:.1f} MiB "
      "({:.0f} % of the index)",
      worker.rank, static_cast<double>(worker.fork_ns) / 1000, worker.busy_s,
      mib(worker.private_bytes_at_end), mib(worker.private_growth()), share);
  if (worker.arena_copied_bytes) {
    line += fmt::format("; of the arena copied: {} KiB", *worker.arena_copied_bytes / 1024);
  }
  return line + "\n";
}

Json worker_json(const WorkerRun& worker) {
  Json json = {{"rank", worker.rank},
               {"pid", worker.pid},
               {"fork_us", static_cast<double>(worker.fork_ns) / 1000},
               {"busy_s", worker.busy_s},
               {"private_bytes_at_start", worker.private_bytes_at_start},
               {"private_bytes_at_end", worker.private_bytes_at_end},
               {"private_growth_bytes", worker.private_growth()}};
  if (worker.arena_copied_bytes) {
    json["arena_copied_bytes"] = *worker.arena_copied_bytes;
    json["arena_dropped_frees"] = worker.arena_dropped_frees.value_or(0);
  }
  return json;
}

}  // namespace

std::string text_report(const Outcome& outcome) {
  std::string text = fmt::format(
      "{} records of {} lists, {} words, {} dependencies, {} warm pages\n"
      "{} queries, the first {}:\n",
      outcome.records, outcome.lists, outcome.words, outcome.dependencies, outcome.warm_pages,
      outcome.queries, outcome.sample.size());
  for (const std::string& answer : outcome.sample) {
    text += "  " + shorten(answer) + "\n";
  }
  text += fmt::format("digest of all answers: {:016x}\nreferences copied: {}\nfrees: {}\n",
                      outcome.digest, outcome.references_copied, outcome.frees);
  text +=
      fmt::format("\nThis run: {}, index {:.1f} MiB, built in {:.2f} s, published in {:.2f} s\n",
                  outcome.storage, mib(outcome.index_bytes), outcome.build_s, outcome.publish_s);
  for (const WorkerRun& worker : outcome.workers) {
    text += worker_line(worker, outcome.index_bytes);
  }
  text += fmt::format("private memory of all workers: {:.1f} MiB\n",
                      mib(outcome.total_private_bytes()));
  return text;
}

std::string json_report(const Outcome& outcome) {
  Json workers = Json::array();
  for (const WorkerRun& worker : outcome.workers) {
    workers.push_back(worker_json(worker));
  }
  const Json json = {{"schema", "cowshed.search/1"},
                     {"storage", outcome.storage},
                     {"same",
                      {{"lists", outcome.lists},
                       {"records", outcome.records},
                       {"words", outcome.words},
                       {"dependencies", outcome.dependencies},
                       {"warm_pages", outcome.warm_pages},
                       {"queries", outcome.queries},
                       {"sample", outcome.sample},
                       {"answers_digest", fmt::format("{:016x}", outcome.digest)},
                       {"references_copied", outcome.references_copied},
                       {"frees", outcome.frees}}},
                     {"index_bytes", outcome.index_bytes},
                     {"build_s", outcome.build_s},
                     {"publish_s", outcome.publish_s},
                     {"workers", workers},
                     {"total_private_bytes", outcome.total_private_bytes()}};
  // A list may hold bytes that are no UTF-8.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace cowshed::search
