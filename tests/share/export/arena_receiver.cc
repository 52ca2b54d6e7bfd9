// Another program than the test that starts it: receives arenas and references by the socket that
// is its descriptor 0, prints what it finds, builds a result in an arena of its own, and sends that
// back.

#include "arena_receiver.h"

#include <cinttypes>
#include <cstdio>
#include <numeric>

#include <cowshed/share/arena_transfer.h>
#include <cowshed/share/export/parcel.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/wire/message.h>

namespace {

using namespace cowshed;

template <class T>
std::string outcome(const Ref<T>& ref) {
  const auto object = ref.get();
  return object ? "ok" : std::string(to_string(object.error().code));
}

}  // namespace

int main() try {
  auto message = launch::receive_message(0).value();
  const auto arenas = internal::adopt_arenas(std::move(message.value().content)).value();
  const auto sent = test::read_bytes<test::Sent>(0);
  const auto nodes = sent.nodes.get().value();
  const auto words = sent.words.get().value();
  const auto numbers = sent.array.get().value();
  std::printf("%zu arenas, nodes %" PRIu64 " at %p, words %" PRIu64 ", array %" PRIu64 "\n",
              arenas.size(), test::sum_of(nodes), static_cast<const void*>(nodes),
              test::sum_of(*words),
              std::accumulate(numbers->begin(), numbers->end(), std::uint64_t{0}));
  std::printf("pmr %s, withdrawn %s, open %s, wrong %s, by name %s\n", outcome(sent.pmr).c_str(),
              outcome(sent.withdrawn).c_str(), outcome(sent.open).c_str(),
              outcome(sent.wrong).c_str(),
              find<test::Words>("words") == sent.words ? "ok" : "another");
  std::fflush(stdout);

  auto own = Arena::create({.name = "result", .capacity = 64_MiB}).value();
  const auto ref = publish(test::make_nodes(own, 1000)).value();
  const auto pmr = publish("result pmr", own.make<test::PmrNumbers>(10, 7).value());
  if (!pmr || !own.freeze()) return 2;
  return send_arena(0, own) && test::write_bytes(0, ref) ? 0 : 3;
} catch (const std::exception& failure) {
  std::printf("%s\n", failure.what());
  return 1;
}
