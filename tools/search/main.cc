#include <cstdlib>
#include <exception>
#include <iostream>

#include <cowshed/tools/search/report.h>
#include <cowshed/tools/search/service.h>

int main(int argc, char** argv) {
  using namespace cowshed::search;
  try {
    const auto parsed = parse_arguments(argc, argv);
    if (parsed.exit_status) {
      return *parsed.exit_status;
    }
    const Options& options = parsed.options;
    const auto outcome = options.storage == HeapStorage::kName ? run_service<HeapStorage>(options)
                                                               : run_service<ArenaStorage>(options);
    if (!outcome) {
      std::cerr << "package_search: " << outcome.error().message << "\n";
      return EXIT_FAILURE;
    }
    std::cout << (options.json ? json_report(*outcome) : text_report(*outcome)) << std::flush;
    return std::cout ? EXIT_SUCCESS : EXIT_FAILURE;
  } catch (const std::exception& error) {
    std::cerr << "package_search: " << error.what() << "\n";
    return EXIT_FAILURE;
  }
}
