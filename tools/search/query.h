#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <cowshed/tools/search/index.h>
#include <cowshed/tools/search/words.h>

namespace cowshed::search {

enum class QueryKind : std::uint8_t {
  words,    // packages about these words, best first
  show,     // one package's record
  install,  // what a package needs, directly or not
  section,  // the most wanted packages of a section
  author,   // the biggest packages of a maintainer
};

struct Query {
  QueryKind kind;
  std::string text;
};

constexpr std::string_view kQueryNames[] = {"words", "show", "install", "section", "author"};
inline std::string_view to_string(QueryKind kind) {
  return kQueryNames[static_cast<std::size_t>(kind)];
}

// The same queries for the same index and count, on every machine: people ask for what is there, so
// words come up as often as packages have them.  The index must not be empty.
template <class Storage>
std::vector<Query> make_queries(const Index<Storage>& index, std::size_t count) {
  std::mt19937_64 random(20240229);
  const auto below = [&random](std::size_t bound) { return random() % bound; };
  const auto subject = [&] { return index.records[below(index.records.size())].get(); };
  std::vector<Query> queries;
  queries.reserve(count);
  while (queries.size() < count) {
    const auto* package = subject();
    const auto dice = below(100);
    if (dice < 50) {
      const auto words = words_of(package->description);
      std::string text;
      for (std::size_t i = 0; i < 1 + dice % 3 && !words.empty(); ++i) {
        const std::string& word = words[below(words.size())];
        if (text.find(word) == std::string::npos) {
          text += (text.empty() ? "" : " ") + word;
        }
      }
      queries.push_back({QueryKind::words, text.empty() ? std::string(package->name) : text});
    } else if (dice < 70) {
      queries.push_back({QueryKind::install, std::string(package->name)});
    } else if (dice < 90) {
      queries.push_back({QueryKind::show, std::string(package->name)});
    } else if (dice < 99) {
      queries.push_back({QueryKind::author, std::string(package->maintainer->name)});
    } else {
      queries.push_back({QueryKind::section, std::string(package->section->name)});
    }
  }
  return queries;
}

}  // namespace cowshed::search
