#pragma once

#include <thread>

#include <cowshed/tools/search/corpus.h>
#include <cowshed/tools/search/index_builder.h>
#include <cowshed/tools/search/options.h>
#include <cowshed/tools/search/outcome.h>
#include <cowshed/tools/search/worker.h>

namespace cowshed::search {

constexpr std::size_t kWarmPages = 10000;
constexpr std::size_t kSample = 12;

// FNV-1a, continued.
constexpr std::uint64_t digest_of(std::string_view text, std::uint64_t digest) {
  for (const char c : text) {
    digest = (digest ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return digest;
}
constexpr std::uint64_t kEmptyDigest = 0xcbf29ce484222325;

class Stopwatch {
 public:
  // Since the last lap.
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const std::chrono::duration<double> seconds = now - std::exchange(last_, now);
    return seconds.count();
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

template <class Storage>
Expected<std::size_t> build(const Options& options, const Storage& storage, Index<Storage>& index) {
  const auto lists = find_lists(options.lists);
  if (!lists) {
    return tl::make_unexpected(lists.error());
  }
  IndexBuilder<Storage> builder(storage, index);
  for (const auto& list : *lists) {
    const auto added = read_list(list).and_then([&](const std::string& text) {
      return builder.add_list(text, list.string(), options.limit);
    });
    if (!added) {
      return tl::make_unexpected(added.error());
    }
  }
  builder.finish();
  if (index.records.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      "the package lists in " + options.lists + " are empty; run `apt-get update`");
  }
  return lists->size();
}

template <class Storage>
std::size_t count_dependencies(const Index<Storage>& index) {
  std::size_t count = 0;
  for (const auto& package : index.records) {
    count += package->depends.size();
  }
  return count;
}

// Adds up what the workers sent, in the order of the queries.
inline Expected<void> merge(const std::vector<WorkerMessages>& messages,
                            const std::vector<WorkerExit>& exits, Outcome& outcome) {
  for (const WorkerExit& exit : exits) {
    const auto& sent = messages[static_cast<std::size_t>(exit.rank)];
    if (!exit.ok() || !sent.complete) {
      return make_error(ErrorCode::system_call,
                        exit.ok() ? "a worker ended before it had answered" : exit.error);
    }
  }
  std::vector<const std::string*> answers(outcome.queries);
  for (const WorkerExit& exit : exits) {
    const auto& [sent, summary, complete] = messages[static_cast<std::size_t>(exit.rank)];
    for (const auto& [query, answer] : sent) {
      answers.at(query) = &answer;
    }
    outcome.references_copied += summary.references_copied;
    outcome.frees += summary.frees;
    WorkerRun run{exit.rank,
                  exit.pid,
                  exit.start_ns,
                  summary.busy_s,
                  summary.private_bytes_at_start,
                  summary.private_bytes_at_end,
                  {},
                  {}};
    if (summary.has_arena) {
      run.arena_copied_bytes = summary.arena_copied_bytes;
      run.arena_dropped_frees = summary.dropped_frees;
    }
    outcome.workers.push_back(run);
  }
  outcome.digest = kEmptyDigest;
  for (const std::string* answer : answers) {
    if (answer == nullptr) {
      return make_error(ErrorCode::system_call, "a query was left without an answer");
    }
    outcome.digest = digest_of("\n", digest_of(*answer, outcome.digest));
    if (outcome.sample.size() < kSample) {
      outcome.sample.push_back(*answer);
    }
  }
  return {};
}

// The whole program, for either storage: build, publish, fork the workers, collect, dismiss.
template <class Storage>
Expected<Outcome> run_service(const Options& options) {
  Stopwatch stopwatch;
  Outcome outcome;
  outcome.storage = Storage::kName;
  auto storage = Storage::create();
  if (!storage) {
    return tl::make_unexpected(storage.error());
  }
  const auto index = storage->template make_owned<Index<Storage>>();
  const auto lists = build(options, *storage, *index);
  if (!lists) {
    return tl::make_unexpected(lists.error());
  }
  auto pages = make_warm_pages(*storage, *index, kWarmPages);
  outcome.lists = *lists;
  outcome.records = index->records.size();
  outcome.words = index->by_word.size();
  outcome.dependencies = count_dependencies(*index);
  outcome.warm_pages = pages.size();
  outcome.build_s = stopwatch.lap();
  const auto reference = storage->publish(index);
  if (!reference) {
    return tl::make_unexpected(reference.error());
  }
  outcome.publish_s = stopwatch.lap();
  outcome.index_bytes = storage->bytes_in_use();
  const auto queries = make_queries(*index, options.queries);
  outcome.queries = queries.size();

  auto links = Links::create(static_cast<std::size_t>(options.workers));
  if (!links) {
    return tl::make_unexpected(links.error());
  }
  auto workers = start({.count = options.workers, .name = "search"}, &work<Storage>, *reference,
                       *storage, pages, queries, *links);
  if (!workers) {
    return tl::make_unexpected(workers.error());
  }
  links->begin();
  const auto messages = links->collect();
  std::this_thread::sleep_for(std::chrono::milliseconds(options.linger_ms));
  links->dismiss();
  const auto exits = workers->wait();
  if (!messages || !exits) {
    return tl::make_unexpected(!messages ? messages.error() : exits.error());
  }
  return merge(*messages, *exits, outcome).map([&] { return outcome; });
}

}  // namespace cowshed::search
