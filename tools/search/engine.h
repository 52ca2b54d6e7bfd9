#pragma once

#include <deque>
#include <fmt/format.h>
#include <unordered_set>

#include <cowshed/tools/search/query.h>
#include <cowshed/tools/search/warm_pages.h>

namespace cowshed::search {

// Answers queries, as one worker does it: copies references to what it finds, sorts, drops most,
// and remembers the latest results.
template <class Storage>
class Engine {
 public:
  // Both must outlive the engine; pages that are freed already are passed over.
  Engine(const Index<Storage>& index, const WarmPages<Storage>& pages) : index_(index) {
    for (const auto& page : pages) {
      if (page.get() != nullptr) {
        pages_.emplace(page->word, page.get());
      }
    }
  }

  // One line without its end.
  std::string answer(const Query& query) {
    std::string line = fmt::format("{} '{}': ", to_string(query.kind), query.text);
    const Result& result = recent(query);
    line += result.text;
    for (const auto& package : result.best) {
      line += fmt::format(" {}={}", package->name, package->version);
    }
    return line;
  }

 private:
  using PackageRef = typename Index<Storage>::PackageRef;
  struct Result {
    std::string text;
    Found<Storage> best;
  };
  struct Remembered {
    QueryKind kind;
    std::string text;
    Result result;
  };

  static constexpr std::size_t kRemembered = 64;

  const Result& recent(const Query& query) {
    const auto same = [&](const Remembered& other) {
      return other.kind == query.kind && other.text == query.text;
    };
    const auto known = std::find_if(recent_.begin(), recent_.end(), same);
    if (known != recent_.end()) {
      return known->result;
    }
    recent_.push_back({query.kind, query.text, find(query)});
    if (recent_.size() > kRemembered) {
      recent_.pop_front();
    }
    return recent_.back().result;
  }

  Result find(const Query& query) const {
    switch (query.kind) {
      case QueryKind::words: return find_words(query.text);
      case QueryKind::show: return show(query.text);
      case QueryKind::install: return install(query.text);
      case QueryKind::section:
        return members(look_up(index_.sections, query.text),
                       [](const auto& package) { return package.wanted_by; });
      case QueryKind::author:
        return members(look_up(index_.maintainers, query.text),
                       [](const auto& package) { return package.installed_kib; });
    }
    return {};
  }

  Result find_words(const std::string& text) const {
    if (const auto page = pages_.find(text); page != pages_.end()) {
      const auto& best = page->second->best;
      return {fmt::format("{} packages", page->second->matches), {best.begin(), best.end()}};
    }
    std::size_t matches = 0;
    auto best = search_words(index_, words_of(text), kBest, matches);
    return {fmt::format("{} packages", matches), std::move(best)};
  }

  Result show(const std::string& name) const {
    const PackageRef* found = look_up(index_.by_name, name);
    if (found == nullptr) {
      return {"no such package", {}};
    }
    const PackageRef package = *found;
    const String* hash = look_up(package->more, "SHA256");
    return {fmt::format("{}, {} KiB, {}, by {}, needs {}, wanted by {}, {}", package->description,
                        package->installed_kib, package->section->name, package->maintainer->name,
                        package->depends.size(), package->wanted_by,
                        hash == nullptr ? std::string_view("no hash") : *hash),
            {package}};
  }

  Result install(const std::string& name) const {
    const PackageRef* found = look_up(index_.by_name, name);
    if (found == nullptr) {
      return {"no such package", {}};
    }
    Found<Storage> needed = {*found};
    std::unordered_set<const Package<Storage>*> seen = {found->get()};
    std::uint64_t total_kib = 0;
    for (std::size_t i = 0; i < needed.size(); ++i) {
      total_kib += needed[i]->installed_kib;
      const PackageRef package = needed[i];  // `needed` moves as it grows
      for (const auto& other : package->depends) {
        if (seen.insert(other.get()).second) {
          needed.push_back(other);
        }
      }
    }
    std::string text = fmt::format("{} packages, {} KiB", needed.size(), total_kib);
    keep_best<Storage>(needed, kBest, [](const auto& package) { return package.installed_kib; });
    return {std::move(text), std::move(needed)};
  }

  template <class GroupRef, class Points>
  static Result members(const GroupRef* group, const Points& points) {
    if (group == nullptr) {
      return {"nothing", {}};
    }
    Found<Storage> all((*group)->members.begin(), (*group)->members.end());
    std::string text = fmt::format("{} packages", all.size());
    keep_best<Storage>(all, kBest, points);
    return {std::move(text), std::move(all)};
  }

  const Index<Storage>& index_;
  std::unordered_map<std::string_view, const WarmPage<Storage>*> pages_;
  std::deque<Remembered> recent_;
};

}  // namespace cowshed::search
