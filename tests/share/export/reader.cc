// Another program than the test that starts it: prints what it finds in an image or in arenas that
// it receives, and the names of the errors for what must not be found.
//
//   reader IMAGE
//   reader save IMAGE    saves one of its own, with the numbers "pmr"
//   reader find IMAGE    prints whether it finds these
//   reader               receives arenas and references by the socket that is its descriptor 0, and
//                        sends back a result in an arena of its own

#include <iostream>
#include <numeric>

#include <cowshed/share/arena_image.h>
#include <cowshed/share/arena_transfer.h>
#include <cowshed/share/export/parcel.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/wire/message.h>

#include "image_objects.h"

namespace {

using namespace cowshed;

template <class Found>
std::string outcome(const Found& found) {
  return found ? "ok" : std::string(to_string(found.error().code));
}

std::uint64_t sum_of(std::span<const std::uint64_t> numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), std::uint64_t{0});
}

int save(const char* path) {
  auto arena = Arena::create({.name = "own", .capacity = 4_MiB});
  const bool saved = arena && publish("pmr", arena->make<test::PmrNumbers>(10, 7).value()) &&
                     arena->freeze() && save_image(*arena, path);
  return saved ? 0 : 1;
}

int find_pmr(const char* path) {
  const auto arena = open_image(path);
  std::cout << (arena ? outcome(find<test::PmrNumbers>("pmr")) : arena.error().message) << '\n';
  return 0;
}

int read(const char* path) {
  const Arena arena = open_image(path).value();
  const auto nodes = find<test::Node>("nodes").value();
  std::cout << arena.name() << ' ' << test::sum_of(&*nodes) << ' '
            << test::sum_of(*find<test::Words>("words").value()) << ' '
            << test::sum_of(*find<test::Table>("table").value()) << ' '
            << sum_of(*find<std::span<const std::uint64_t>>("array").value()) << ' '
            << outcome(find<test::PmrNumbers>("pmr")) << ' ' << outcome(find<test::Words>("nodes"))
            << ' ' << outcome(find<test::Node>("nameless")) << ' '
            << arena.private_bytes().value_or(1) << '\n';
  return 0;
}

int receive() {
  auto message = launch::receive_message(0).value();
  const auto arenas = internal::adopt_arenas(std::move(message.value().content)).value();
  const auto sent = test::read_bytes<test::Sent>(0);
  const test::Node* nodes = sent.nodes.get().value();
  std::cout << arenas.size() << " arenas, nodes " << test::sum_of(nodes) << " at " << nodes
            << ", words " << test::sum_of(*sent.words) << ", array " << sum_of(*sent.array) << '\n'
            << "pmr " << outcome(sent.pmr.get()) << ", withdrawn " << outcome(sent.withdrawn.get())
            << ", open " << outcome(sent.open.get()) << ", wrong " << outcome(sent.wrong.get())
            << ", by name " << (find<test::Words>("words") == sent.words ? "ok" : "another")
            << std::endl;
  auto own = Arena::create({.name = "result", .capacity = 64_MiB}).value();
  const auto ref = publish(test::make_nodes(own, 1000)).value();
  const auto pmr = publish("result pmr", own.make<test::PmrNumbers>(10, 7).value());
  if (!pmr || !own.freeze()) return 2;
  return send_arena(0, own) && test::write_bytes(0, ref) ? 0 : 3;
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string_view what = argc == 3 ? argv[1] : "";
  return what == "save"   ? save(argv[2])
         : what == "find" ? find_pmr(argv[2])
         : argc == 2      ? read(argv[1])
                          : receive();
} catch (const std::exception& failure) {
  std::cout << failure.what() << '\n';
  return 1;
}
