#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <cowshed/tests/support/subprocess.h>

namespace cowshed::test {

// A folder of package lists, gone with the object.
class PackageLists {
 public:
  PackageLists();
  PackageLists(const PackageLists&) = delete;
  PackageLists& operator=(const PackageLists&) = delete;
  ~PackageLists();

  void write(const std::string& name, const std::string& text) const;
  // Two lists of `count` packages in all, which need each other in circles.
  void generate(int count) const;
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
};

// package_search with these arguments.
Finished search(const std::vector<std::string>& arguments);

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

}  // namespace cowshed::test
