#include <CLI/CLI.hpp>
#include <iostream>

#include <cowshed/tools/search/options.h>

namespace cowshed::search {
namespace {

constexpr const char* kDescription =
    "A small search service over this machine's Debian package lists, to see what its workers "
    "copy.\n"
    "Builds an index of ordinary C++ objects, forks workers that answer queries from it, and "
    "prints\n"
    "the answers and what they cost.  The same program text runs on either storage.";

constexpr const char* kFooter = R"(Examples:
  package_search --storage heap      malloc and std::shared_ptr: each worker copies most of the index
  package_search --storage arena     the frozen arena: none of it, and the same answers
  cowtop -- package_search --storage heap
                                     the copies, page by page, as the kernel makes them

The first part of the output is the same for both storages, down to the references that the workers
copied and the objects that they freed; what follows "This run:" is what it cost.

Exit status: 0; 1 when the lists cannot be used or a worker failed; 2 for bad usage.)";

constexpr int kBadUsage = 2;

}  // namespace

ParsedArguments parse_arguments(int argc, const char* const* argv) {
  ParsedArguments parsed;
  Options& options = parsed.options;
  CLI::App app(kDescription, "package_search");
  app.footer(kFooter);
  app.set_version_flag("--version", "package_search " COWSHED_VERSION);
  app.add_option("--storage", options.storage, "Where the index lives: heap or arena")
      ->required()
      ->type_name("NAME")
      ->check(CLI::IsMember({"heap", "arena"}).description(""));
  app.add_option("--workers", options.workers, "Processes that answer (4)")
      ->type_name("N")
      ->check(CLI::Range(1, 256).description(""));
  app.add_option("--queries", options.queries, "Queries to answer, all workers together (2000)")
      ->type_name("N")
      ->check(CLI::Range(std::size_t{1}, std::size_t{100'000'000}).description(""));
  app.add_option("--lists", options.lists, "Folder with *_Packages files (/var/lib/apt/lists)")
      ->type_name("DIR");
  app.add_option("--limit", options.limit, "Read only the first N records (all)")
      ->type_name("N")
      ->check(CLI::Range(std::size_t{1}, std::size_t{100'000'000}).description(""));
  app.add_option("--linger", options.linger_ms,
                 "Keep the workers for MS milliseconds after the last answer (300): a service does "
                 "not end with its last query, and a sampling tool sees their final state")
      ->type_name("MS")
      ->check(CLI::Range(0, 3'600'000).description(""));
  app.add_flag("--json", options.json, "Print one JSON object (schema cowshed.search/1), not text");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {
      parsed.exit_status = app.exit(error);
    } else {
      std::cerr << "package_search: " << error.what() << "; see package_search --help\n";
      parsed.exit_status = kBadUsage;
    }
  }
  return parsed;
}

}  // namespace cowshed::search
