#include <iostream>

#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {

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
