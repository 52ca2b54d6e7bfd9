#include <atomic>
#include <fmt/format.h>
#include <fstream>
#include <unistd.h>

#include <cowshed/tests/search/package_lists.h>

namespace cowshed::test {

PackageLists::PackageLists() {
  static std::atomic<int> made = 0;
  folder_ = std::filesystem::temp_directory_path() /
            fmt::format("package_lists.{}.{}", getpid(), made.fetch_add(1));
  std::filesystem::create_directories(folder_);
}

PackageLists::~PackageLists() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

void PackageLists::write(const std::string& name, const std::string& text) const {
  std::ofstream(folder_ / name, std::ios::binary) << text;
}

void PackageLists::generate(int count) const {
  constexpr const char* kWords[] = {"web",  "server", "library", "python", "http",
                                    "game", "editor", "music",   "files",  "tool"};
  std::string texts[2];
  for (int i = 0; i < count; ++i) {
    texts[i % 2] += fmt::format(
        "Package: pkg{0}\nVersion: {1}.{2}-1\nMaintainer: Team {3} <t{3}@example.org>\n"
        "Installed-Size: {4}\nDepends: pkg{5} (>= 1), pkg{6} | nothing, libnone\n"
        "Description: {7} {8} for {9}\nTag: role::{7}, use::{9},\n devel::{8}\n"
        "Section: section{10}\nFilename: pool/p/pkg{0}.deb\nSHA256: {0:064x}\n\n",
        i, i % 7, i % 5, i % 23, (i * 37) % 1000, (i + 1) % count, (i * 7 + 3) % count,
        kWords[i % 10], kWords[(i / 3) % 10], kWords[(i / 10) % 10], i % 11);
  }
  write("example_main_Packages", texts[0]);
  write("example_updates_Packages", texts[1]);
}

Finished search(const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {PACKAGE_SEARCH};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run(command);
}

}  // namespace cowshed::test
