// A pre-forking HTTP server as one writes it without Cowshed: it loads the package lists that
// `apt-get update` left into ordinary objects, and forks workers that answer from them.
//
//   GET /package?name=NAME   every field of a package
//   GET /search?word=WORD    the 20 largest packages whose name or description has the word
#include <algorithm>
#include <apt-pkg/fileutl.h>
#include <apt-pkg/tagfile.h>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "server.h"

template <class T>
using Ptr = std::shared_ptr<T>;

struct Package {
  std::string name;
  long installed_size = 0;  // KiB
  std::map<std::string, std::string> fields;
};

struct Catalogue {
  std::unordered_map<std::string, Ptr<Package>> by_name;
  std::unordered_map<std::string, std::vector<Ptr<Package>>> by_word;
};

void add_package(Catalogue& catalogue, const pkgTagSection& section) {
  const auto package = std::make_shared<Package>();
  package->name = section.FindS("Package");
  package->installed_size = section.FindI("Installed-Size");
  for (unsigned int i = 0; i < section.Count(); ++i) {
    const char* begin = nullptr;
    const char* end = nullptr;
    section.Get(begin, end, i);
    const std::string field(begin, std::find(begin, end, ':'));
    package->fields[field] = section.FindS(field);
  }
  if (!catalogue.by_name.emplace(package->name, package).second) return;  // in an earlier list
  for_each_word(package->name + " " + package->fields["Description"], [&](const std::string& word) {
    auto& packages = catalogue.by_word[word];
    if (packages.empty() || packages.back() != package) packages.push_back(package);
  });
}

Ptr<Catalogue> load(const std::filesystem::path& folder) {
  auto catalogue = std::make_shared<Catalogue>();
  for (const auto& list : std::filesystem::directory_iterator(folder)) {
    if (list.path().filename().string().find("_Packages") == std::string::npos) continue;
    FileFd file(list.path().string(), FileFd::ReadOnly, FileFd::Extension);
    pkgTagFile sections(&file);
    for (pkgTagSection section; sections.Step(section);) add_package(*catalogue, section);
  }
  return catalogue;
}

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: %s PORT WORKERS FOLDER (such as 8080 4 /var/lib/apt/lists)\n",
                 argv[0]);
    return EXIT_FAILURE;
  }
  const auto catalogue = load(argv[3]);
  return fork_workers(*catalogue, argv);
}
