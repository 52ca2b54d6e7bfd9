#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace cowshed::search {

// The words of a text in lower case, in their order, repetitions included: runs of 2 to 40 ASCII
// letters and digits; bytes beyond ASCII count as letters.
std::vector<std::string> words_of(std::string_view text);

}  // namespace cowshed::search
