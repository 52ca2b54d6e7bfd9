#include <algorithm>
#include <iostream>
#include <numeric>
#include <utility>
#include <vector>

#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {

std::size_t edits(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t change = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({change, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

tl::unexpected<Error> wrong(std::string message) {
  return make_error(ErrorCode::invalid_argument, std::move(message));
}

void complain(std::string_view message) {
  std::cerr << "cowtop: " << printable(message) << '\n' << std::flush;
}

int own_error(const Error& error) {
  complain(error.message);
  return kOwnError;
}

int own_error_after(const Error& error, int exit_status) {
  complain(error.message);
  return exit_status == 0 ? kOwnError : exit_status;
}

}  // namespace cowshed::cowtop
