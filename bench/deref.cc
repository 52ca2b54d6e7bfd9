#include <array>
#include <cstdint>

#include <cowshed/share/arena.h>
#include <cowshed/share/registry.h>

#include "family.h"
#include "process.h"

// What it costs to use a reference, with its checks, instead of a raw pointer.
namespace cowshed::bench {
namespace {

constexpr std::size_t kObjects = 256;  // their references and slots fit the first cache

struct Object {
  std::uint64_t value;
  Ref<Object> next;  // round all of them
  const Object* next_raw;
};

struct Objects {
  Arena arena = got(Arena::create({.name = "deref", .capacity = 16_MiB}));
  std::array<Ref<Object>, kObjects> refs;
  std::array<const Object*, kObjects> pointers{};

  Objects() {
    const auto objects = got(arena.make_array<Object>(kObjects));
    for (std::size_t i = 0; i < kObjects; ++i) {
      refs.at(i) = got(publish(&objects[i]));
      pointers.at(i) = &objects[i];
    }
    for (std::size_t i = 0; i < kObjects; ++i) {
      const std::size_t next = (i * 5 + 1) % kObjects;  // visits each, in no order
      objects[i] = {i, refs.at(next), pointers.at(next)};
    }
    got(arena.freeze());
  }
};

template <class Use>
void add_use(const std::string& name, Use use) {
  benchmark::RegisterBenchmark(("deref/" + name).c_str(), [use](benchmark::State& state) {
    pin_to_cpu(0);
    std::uint64_t sum = 0;
    for ([[maybe_unused]] auto _ : state) sum += use();
    unpin();
    state.counters["use_s"] = benchmark::Counter(
        kObjects, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
    if (sum != static_cast<std::uint64_t>(state.iterations()) * (kObjects * (kObjects - 1) / 2))
      state.SkipWithError("a reference gave another object");
  })->MinTime(is_quick() ? 0.001 : 0.1);
}

// A sum over all objects.  The compiler must load each handle anew, as a program does.
template <class Handles, class Read>
void add_each(const std::string& name, const Handles& handles, Read read) {
  add_use(name, [&handles, read] {
    std::uint64_t sum = 0;
    for (const auto& handle : handles) sum += read(handle);
    benchmark::ClobberMemory();
    return sum;
  });
}

// One after the other: the object has the handle of the next one.
template <class Handle>
void add_chain(const std::string& name, const Handle& first, Handle Object::* next) {
  add_use(name, [&first, next] {
    std::uint64_t sum = 0;
    Handle handle = first;
    for (std::size_t i = 0; i < kObjects; ++i) {
      const Object& object = *handle;
      sum += object.value;
      handle = object.*next;
    }
    return sum;
  });
}

}  // namespace

void add_deref() {
  static const Objects all;
  const auto value = [](const auto& handle) { return (*handle).value; };
  add_each("raw", all.pointers, value);
  add_each("raw_again", all.pointers, value);
  add_each("ref", all.refs, value);
  add_chain("raw_chain", all.pointers[0], &Object::next_raw);
  add_chain("ref_chain", all.refs[0], &Object::next);
}

}  // namespace cowshed::bench
