#include <cowshed/tools/search/words.h>

namespace cowshed::search {
namespace {

constexpr std::size_t kShortest = 2;
constexpr std::size_t kLongest = 40;

bool is_word_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || static_cast<unsigned char>(c) >= 0x80;
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto end_word = [&] {
    if (word.size() >= kShortest && word.size() <= kLongest) {
      words.push_back(word);
    }
    word.clear();
  };
  for (const char c : text) {
    if (is_word_character(lower(c))) {
      word += lower(c);
    } else {
      end_word();
    }
  }
  end_word();
  return words;
}

}  // namespace cowshed::search
