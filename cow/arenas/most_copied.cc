#include <algorithm>
#include <functional>
#include <utility>

#include <cowshed/cow/arenas/most_copied.h>

namespace cowshed::cow {
namespace {

// Leaves the entries with the most `amount`, in their order.  `rest` is the one of all others.
template <class T, class Amount, class Add>
void keep_most(std::vector<T>& all, T rest, Amount amount, Add add) {
  if (all.size() <= kMostObjects) return;
  std::erase_if(all, [&](const T& each) {
    const bool is_rest = each.type == kFurtherObjects;
    if (is_rest) add(rest, each);
    return is_rest;
  });
  if (all.size() >= kMostObjects) {
    std::vector<std::uint64_t> amounts;
    for (const T& each : all) amounts.push_back(amount(each));
    const auto last = amounts.begin() + kMostObjects - 2;  // of those that stay
    std::nth_element(amounts.begin(), last, amounts.end(), std::greater<>());
    auto equal = std::count(amounts.begin(), last + 1, *last);
    std::erase_if(all, [&](const T& each) {
      const bool stays = amount(each) > *last || (amount(each) == *last && equal-- > 0);
      if (!stays) add(rest, each);
      return !stays;
    });
  }
  all.push_back(std::move(rest));
  all.shrink_to_fit();
}

}  // namespace

void keep_most_copied(std::vector<ObjectCopies>& objects) {
  keep_most(
      objects, {"", kFurtherObjects, "", 0},
      [](const ObjectCopies& each) { return each.copied_pages; },
      [](ObjectCopies& to, const ObjectCopies& each) { to.copied_pages += each.copied_pages; });
}

void keep_most_sent(std::vector<SentObjects>& sent) {
  keep_most(
      sent, {"", "", kFurtherObjects, "", 0, 0, 0},
      [](const SentObjects& each) { return each.bytes; }, add_counts);
}

void add_counts(SentObjects& to, const SentObjects& more) {
  to.messages += more.messages;
  to.objects += more.objects;
  to.bytes += more.bytes;
}

}  // namespace cowshed::cow
