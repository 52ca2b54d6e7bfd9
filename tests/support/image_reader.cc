// Opens an image that another program saved, and prints what it finds there: sums of its objects,
// and the names of the errors for what must not be found.
//
//   image_reader IMAGE

#include <iostream>
#include <numeric>
#include <span>

#include <cowshed/share/image.h>
#include <cowshed/share/registry.h>

#include "image_objects.h"

namespace {

using namespace cowshed;

template <class T>
std::string error_of(std::string_view name) {
  const auto found = find<T>(name);
  return found ? "found" : std::string(to_string(found.error().code));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto verified = verify_image(argv[1]);
  const auto arena = open_image(argv[1]);
  if (!verified || !arena) {
    std::cout << (verified ? arena.error() : verified.error()).message << '\n';
    return 1;
  }
  const auto nodes = find<test::Node>("nodes");
  const auto words = find<test::Words>("words");
  const auto table = find<test::Table>("table");
  const auto array = find<std::span<const std::uint64_t>>("array");
  for (const Error* error : {nodes ? nullptr : &nodes.error(), words ? nullptr : &words.error(),
                             table ? nullptr : &table.error(), array ? nullptr : &array.error()}) {
    if (error != nullptr) {
      std::cout << error->message << '\n';
      return 1;
    }
  }
  const std::span<const std::uint64_t> numbers = **array;
  std::cout << arena->name() << ' ' << test::sum_of(&**nodes) << ' ' << test::sum_of(**words) << ' '
            << test::sum_of(**table) << ' '
            << std::accumulate(numbers.begin(), numbers.end(), std::uint64_t{0}) << ' '
            << error_of<test::PmrNumbers>("pmr") << ' ' << error_of<test::Words>("nodes") << ' '
            << error_of<test::Node>("nameless") << ' ' << arena->private_bytes().value_or(1)
            << '\n';
  return 0;
}
