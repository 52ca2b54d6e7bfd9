#include <cmath>
#include <cstdio>
#include <numeric>
#include <ranges>
#include <span>

#include <cowshed/share/arena.h>
#include <cowshed/share/map.h>
#include <cowshed/share/registry.h>

using namespace cowshed::size_literals;
using Values = std::span<const double>;

double part_sum(const cowshed::Worker& self, Values values, double power) {
  const auto size = values.size() / static_cast<std::size_t>(self.count);
  const auto part = values.subspan(static_cast<std::size_t>(self.rank) * size, size);
  return std::accumulate(part.begin(), part.end(), 0.0,
                         [&](double sum, double value) { return sum + std::pow(value, power); });
}

double value_at(int index, Values values) { return values[static_cast<std::size_t>(index)]; }

int main(int argc, char** argv) {
  const cowshed::Runtime runtime(argc, argv);  // first: in a spawned process it runs the worker
  auto arena = cowshed::Arena::create({.name = "values", .capacity = 1_GiB}).value();
  const auto values = arena.make_array<double>(1'000'000).value();
  std::iota(values.begin(), values.end(), 0.0);
  const auto ref = cowshed::publish("values", values).value();
  if (!arena.freeze()) return 1;
  for (const auto method :
       {cowshed::Start::fork, cowshed::Start::spawn, cowshed::Start::forkserver}) {
    auto workers = cowshed::start<part_sum>({.method = method, .count = 4}, ref, 1.0).value();
    double sum = 0;
    const auto results = workers.wait().value();
    for (const auto& result : results)
      sum += result.value.value();  // or result.error says what became of it
    const cowshed::MapOptions options = {.workers = {.method = method, .count = 2}};
    const auto items = cowshed::map<value_at>(options, std::views::iota(0, 1000), ref).value();
    std::printf("sum %.0f, last item %.0f\n", sum, items.back());
  }
}
