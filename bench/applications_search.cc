#include "applications_search.h"

#include <fmt/format.h>
#include <optional>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

#include <cowshed/tools/search/service.h>

#include "applications_packages.h"
#include "crew.h"
#include "got.h"
#include "peer.h"

namespace cowshed::bench {
namespace {

using nlohmann::json;

constexpr std::uint64_t kFirstAnswer = 0;
constexpr std::uint64_t kAllAnswers = 1;

// What a process has that can answer.
template <class Storage>
struct SearchIndex {
  SearchIndex(const std::string& list, std::size_t query_count, std::size_t page_count)
      : storage(got(Storage::create())),
        index(storage.template make_owned<search::Index<Storage>>()) {
    search::IndexBuilder<Storage> builder(storage, *index);
    got(builder.add_list(list, "packages", 0));
    builder.finish();
    pages = search::make_warm_pages(storage, *index, page_count);
    queries = search::make_queries(*index, query_count);
    got(storage.publish(index));
  }

  Storage storage;
  typename Storage::template Owned<search::Index<Storage>> index;
  search::WarmPages<Storage> pages;
  std::vector<search::Query> queries;
};

// What the worker of that rank answers: every `count`-th query, or the first of them.  Their
// digest.
template <class Storage>
std::uint64_t answer_queries(const SearchIndex<Storage>& index, std::size_t rank, std::size_t count,
                             std::uint64_t task) {
  search::Engine<Storage> engine(*index.index, index.pages);
  const std::size_t end = task == kFirstAnswer ? rank + 1 : index.queries.size();
  std::uint64_t digest = search::kEmptyDigest;
  for (std::size_t i = rank; i < end; i += count) {
    digest = search::digest_of(engine.answer(index.queries[i]), digest);
  }
  return digest;
}

template <class Storage>
class SearchWork final : public SubjectWork {
 public:
  explicit SearchWork(const json& configuration)
      : workers_(configuration["workers"]),
        queries_(configuration["queries"]),
        pages_(configuration["pages"]),
        each_builds_(configuration["way"] == "rebuilt"),
        list_(make_package_list(configuration["records"])) {}

  json facts() const override { return {{"pid", getpid()}}; }

  json answer(const json& question) override {
    if (question["do"] == "begin") return begin();
    if (question["do"] == "use") return use();
    crew_.reset();
    return json::object();
  }

 private:
  json begin() {
    const std::uint64_t before = now_ns();
    if (!each_builds_) build();
    const std::uint64_t built = now_ns();
    crew_.emplace(workers_,
                  [this](std::uint64_t rank, std::uint64_t task) { return work(rank, task); });
    crew_->start(kFirstAnswer);
    const auto answers = crew_->results();
    const std::uint64_t end = now_ns();
    return {{"pids", crew_->pids()},
            {"answers", answers},
            {"figures",
             {{"first answer", static_cast<double>(end - before) / 1e6},
              {"start", static_cast<double>(end - built) / 1e6}}}};
  }

  json use() {
    const std::uint64_t before = now_ns();
    crew_->start(kAllAnswers);
    const auto answers = crew_->results();
    const auto ns = static_cast<double>(now_ns() - before);
    const auto thousands = static_cast<double>(queries_) / 1e3;
    return {{"answers", answers}, {"figures", {{"queries", thousands / (ns / 1e9)}}}};
  }

  void build() {
    index_.emplace(list_, queries_, pages_);
    std::string().swap(list_);
  }

  std::uint64_t work(std::uint64_t rank, std::uint64_t task) {
    if (!index_) build();
    if (task == kAllAnswers) {
      search::free_pages_of_others<Storage>(index_->pages, rank, workers_);
    }
    return answer_queries(*index_, rank, workers_, task);
  }

  std::size_t workers_;
  std::size_t queries_;
  std::size_t pages_;
  bool each_builds_;
  std::string list_;
  std::optional<SearchIndex<Storage>> index_;
  std::optional<Crew> crew_;
};

// What each worker has to say, from one process without prepared pages.
struct RightAnswers {
  explicit RightAnswers(const json& load) {
    const std::size_t workers = load["workers"];
    const SearchIndex<search::HeapStorage> index(make_package_list(load["records"]),
                                                 load["queries"], 0);
    for (std::size_t rank = 0; rank < workers; ++rank) {
      first.push_back(answer_queries(index, rank, workers, kFirstAnswer));
      all.push_back(answer_queries(index, rank, workers, kAllAnswers));
    }
  }

  void check(const json& begin, const json& use) const {
    if (begin["answers"] != json(first) || use["answers"] != json(all)) {
      throw std::runtime_error("queries are answered wrongly");
    }
  }

  std::vector<std::uint64_t> first;
  std::vector<std::uint64_t> all;
};

}  // namespace

Application search_service(bool quick, Report& report) {
  const json load =
      quick ? json{{"records", 1500}, {"queries", 200}, {"pages", 300}, {"workers", 2}}
            : json{{"records", 40000}, {"queries", 2000}, {"pages", 4000}, {"workers", 4}};
  report.setting("search service",
                 fmt::format("that of tools/search: {} made-up packages, {} workers who answer {} "
                             "queries and free {} prepared pages of the others; all answers are "
                             "compared with those of one process",
                             load["records"].dump(), load["workers"].dump(), load["queries"].dump(),
                             load["pages"].dump()));
  report.setting("search service/first answer",
                 "from the list's text in memory until each worker has given an answer: index, "
                 "freeze, fork");
  report.setting("search service/start", "the same, from the index that is ready on");
  report.setting(
      "search service, its ways",
      "arena: std::pmr containers and ImmortalPtr, frozen (strict); shared_ptr: the same "
      "on glibc's heap; huge pages: GLIBC_TUNABLES=glibc.malloc.hugetlb=1; rebuilt: each "
      "worker makes its own index on the heap");
  return {.name = "search service",
          .ways = {{"arena", {{"way", "arena"}}},
                   {"shared_ptr", {{"way", "heap"}}},
                   {"shared_ptr, huge pages",
                    {{"way", "heap"}},
                    {"GLIBC_TUNABLES=glibc.malloc.hugetlb=1"}},
                   {"rebuilt", {{"way", "rebuilt"}}},
                   {"arena again", {{"way", "arena"}}}},
          .load = load,
          .metrics = {{"first answer", "ms"}, {"start", "ms"}, {"queries", "thousand/s"}},
          .counted = {{"copied pages"}},
          .check = [right = RightAnswers(load)](const json& begin, const json& use) {
            right.check(begin, use);
          }};
}

std::unique_ptr<SubjectWork> make_search_work(const json& configuration) {
  if (configuration["way"] == "arena") {
    return std::make_unique<SearchWork<search::ArenaStorage>>(configuration);
  }
  return std::make_unique<SearchWork<search::HeapStorage>>(configuration);
}

}  // namespace cowshed::bench
