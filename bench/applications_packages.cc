#include "applications_packages.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <fmt/format.h>
#include <iterator>
#include <random>
#include <string_view>

namespace cowshed::bench {
namespace {

constexpr std::array<std::string_view, 16> kSyllables = {"ba", "do", "fi", "gu",  "ka", "le",
                                                         "mi", "no", "pe", "qua", "ri", "so",
                                                         "ta", "ve", "xi", "zu"};
constexpr std::size_t kWords = 4096;
constexpr std::size_t kMaintainers = 400;
constexpr std::size_t kSections = 50;
constexpr std::size_t kMostNeeded = 6;

std::string word(std::size_t number) {
  std::string result;
  for (std::size_t rest = number + 16; rest != 0; rest /= kSyllables.size()) {
    result += kSyllables[rest % kSyllables.size()];
  }
  return result;
}

std::string package_name(std::size_t number) { return fmt::format("{}-{}", word(number), number); }

// Some numbers are drawn far more often than others, as words and names are.
class Draw {
 public:
  std::uint64_t bits() { return random_(); }
  std::size_t below(std::size_t bound) { return random_() % bound; }
  std::size_t often_small(std::size_t bound) { return below(1 + below(1 + below(bound))); }

 private:
  std::mt19937_64 random_{20240229};
};

std::string sentence(Draw& draw, std::size_t words) {
  std::string result;
  for (std::size_t i = 0; i < words; ++i) {
    result += (i == 0 ? "" : " ") + word(draw.often_small(kWords));
  }
  return result;
}

}  // namespace

std::string make_package_list(std::size_t records) {
  Draw draw;
  std::string list;
  const auto out = std::back_inserter(list);
  for (std::size_t i = 0; i < records; ++i) {
    const std::string name = package_name(i);
    const std::size_t maintainer = draw.often_small(kMaintainers);
    fmt::format_to(out, "Package: {}\nVersion: {}.{}-1\nInstalled-Size: {}\n", name, draw.below(9),
                   draw.below(99), 1 + draw.below(99999));
    fmt::format_to(out, "Maintainer: {0} <{0}@example.org>\nArchitecture: amd64\n",
                   word(maintainer));
    for (std::size_t k = draw.below(1 + std::min(i, kMostNeeded)), first = k; k != 0; --k) {
      fmt::format_to(out, "{}{} (>= 1.{})", k == first ? "Depends: " : ", ",
                     package_name(draw.often_small(i)), draw.below(9));
      if (k == 1) list += '\n';
    }
    fmt::format_to(out, "Description: {}\nHomepage: https://{}.example.org/\n",
                   sentence(draw, 4 + draw.below(8)), name);
    fmt::format_to(out, "Section: {}\nPriority: optional\nTag: {}\n",
                   word(draw.often_small(kSections)), sentence(draw, 3));
    fmt::format_to(out, "Filename: pool/main/{0}/{0}_amd64.deb\nSHA256: {1:016x}{2:016x}\n\n", name,
                   draw.bits(), draw.bits());
  }
  return list;
}

}  // namespace cowshed::bench
