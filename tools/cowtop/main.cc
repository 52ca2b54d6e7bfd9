#include <exception>
#include <iostream>

#include <cowshed/tools/cowtop/exit_status.h>
#include <cowshed/tools/cowtop/options.h>
#include <cowshed/tools/cowtop/run.h>

int main(int argc, char** argv) {
  try {
    const auto parsed = cowshed::cowtop::parse_arguments(argc, argv);
    return parsed.exit_status ? *parsed.exit_status : cowshed::cowtop::run(parsed.options);
  } catch (const std::exception& error) {
    std::cerr << "cowtop: " << error.what() << "\n";
    return cowshed::cowtop::kOwnError;
  }
}
