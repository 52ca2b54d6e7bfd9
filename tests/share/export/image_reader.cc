// Opens an image that another program saved, and prints what it finds there: sums of its objects,
// and the names of the errors for what must not be found.
//
//   image_reader IMAGE
//   image_reader save IMAGE    saves one of its own, with the numbers "pmr"
//   image_reader find IMAGE    prints whether it finds these

#include <iostream>
#include <numeric>
#include <span>

#include <cowshed/share/arena_image.h>
#include <cowshed/share/registry.h>

#include "image_objects.h"

namespace {

using namespace cowshed;

template <class T>
std::string error_of(std::string_view name) {
  const auto found = find<T>(name);
  return found ? "found" : std::string(to_string(found.error().code));
}

int save(const char* path) {
  auto arena = Arena::create({.name = "own", .capacity = 4_MiB});
  const bool saved = arena && publish("pmr", arena->make<test::PmrNumbers>(10, 7).value()) &&
                     arena->freeze() && save_image(*arena, path);
  return saved ? 0 : 1;
}

int find_pmr(const char* path) {
  const auto arena = open_image(path);
  std::cout << (arena ? error_of<test::PmrNumbers>("pmr") : arena.error().message) << '\n';
  return 0;
}

int run(int argc, char** argv) {
  const std::string_view what = argc == 3 ? argv[1] : "";
  if (what == "save") return save(argv[2]);
  if (what == "find") return find_pmr(argv[2]);
  if (argc != 2) return 2;
  const Arena arena = open_image(argv[1]).value();
  const std::string wrong = error_of<test::Words>("nodes");
  const auto nodes = find<test::Node>("nodes").value();
  const auto words = find<test::Words>("words").value();
  const auto table = find<test::Table>("table").value();
  const std::span<const std::uint64_t> numbers =
      *find<std::span<const std::uint64_t>>("array").value();
  std::cout << arena.name() << ' ' << test::sum_of(&*nodes) << ' ' << test::sum_of(*words) << ' '
            << test::sum_of(*table) << ' '
            << std::accumulate(numbers.begin(), numbers.end(), std::uint64_t{0}) << ' '
            << error_of<test::PmrNumbers>("pmr") << ' ' << wrong << ' '
            << error_of<test::Node>("nameless") << ' ' << arena.private_bytes().value_or(1) << '\n';
  return 0;
}

}  // namespace

int main(int argc, char** argv) try {
  return run(argc, argv);
} catch (const std::exception& failure) {
  std::cout << failure.what() << '\n';
  return 1;
}
