#include <fmt/format.h>
#include <string>
#include <vector>

#include <cowshed/base/size_literals.h>

#include "family.h"
#include "traffic.h"

// Messages through channels, and through what else there is.
namespace cowshed::bench {
namespace {

void add_traffic(const std::string& name, const std::string& way, const Shape& shape,
                 std::uint64_t count) {
  if (is_quick()) count = std::max<std::uint64_t>(count / 100, 8);
  add(fmt::format("channel/{}/{}", name, way), [=](benchmark::State& state) {
    Traffic traffic(way, shape, count);
    traffic.run(true);  // checks all and uses every slot
    traffic.run(false);
    if (!shape.back && !shape.paced) return traffic.ns_a_message();
    state.counters["p99_ns"] = traffic.ns_a_trip(0.99);
    return traffic.ns_a_trip(0.5);
  });
}

}  // namespace

void add_channel() {
  const std::vector<std::string> all = {"channel",     "pipe",   "socketpair",
                                        "boost_queue", "zeromq", "values"};
  for (const bool spins : {false, true}) {
    const std::string how = spins ? "spins" : "blocks";
    auto small = all;
    if (spins) small.emplace_back("boost_spsc");
    for (const auto& way : small) {
      add_traffic("rate_64B_" + how, way, {.size = 64, .spins = spins}, 100'000);
      add_traffic("trip_64B_" + how, way, {.size = 64, .back = true, .spins = spins}, 2'000);
    }
  }
  add_traffic("rate_64B_blocks", "channel_again", {.size = 64}, 100'000);
  for (const auto& way : all) {
    if (way != "values") {
      add_traffic("rate_1MiB_blocks", way, {.size = 1_MiB}, 128);
      add_traffic("trip_1MiB_blocks", way, {.size = 1_MiB, .back = true}, 250);
    }
    if (way != "zeromq")  // PAIR sockets are for two
      add_traffic("rate_64B_4to4", way, {.size = 64, .senders = 4, .receivers = 4}, 20'000);
    add_traffic("wake_64B", way, {.size = 64, .paced = true}, 300);
  }
  add_traffic("wake_64B", "futex", {.size = 64, .paced = true}, 300);
}

}  // namespace cowshed::bench
