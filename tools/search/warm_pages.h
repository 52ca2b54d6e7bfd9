#pragma once

#include <string>
#include <vector>

#include <cowshed/tools/search/ranking.h>

// Results prepared before the workers start, for the words that most packages have.
namespace cowshed::search {

template <class Storage>
struct WarmPage {
  using allocator_type = Allocator;

  explicit WarmPage(const Allocator& memory) : word(memory), best(memory) {}

  String word;
  std::size_t matches = 0;
  std::pmr::vector<typename Index<Storage>::PackageRef> best;
};

// Each has one owner, so that who does not need it can free it.
template <class Storage>
using WarmPages = std::vector<typename Storage::template Owned<WarmPage<Storage>>>;

// Pages for the `count` most frequent words, most frequent first.
template <class Storage>
WarmPages<Storage> make_warm_pages(const Storage& storage, const Index<Storage>& index,
                                   std::size_t count) {
  std::vector<std::pair<std::size_t, std::string_view>> words;
  words.reserve(index.by_word.size());
  for (const auto& [word, packages] : index.by_word) {
    words.emplace_back(packages.size(), word);
  }
  std::sort(words.rbegin(), words.rend());
  words.resize(std::min(count, words.size()));
  WarmPages<Storage> pages;
  pages.reserve(words.size());
  for (const auto& [frequency, word] : words) {
    auto page = storage.template make_owned<WarmPage<Storage>>();
    page->word = word;
    const auto best = search_words(index, {std::string(word)}, kBest, page->matches);
    page->best.assign(best.begin(), best.end());
    pages.push_back(std::move(page));
  }
  return pages;
}

// Every worker answers for its own share of the words from prepared pages; the others' it frees.
template <class Storage>
void free_pages_of_others(WarmPages<Storage>& pages, std::size_t rank, std::size_t workers) {
  for (std::size_t i = 0; i < pages.size(); ++i) {
    if (i % workers != rank) {
      pages[i].reset();
    }
  }
}

}  // namespace cowshed::search
