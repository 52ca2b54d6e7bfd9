#include <array>
#include <benchmark/benchmark.h>
#include <cstdint>
#include <memory>
#include <string>

#include <cowshed/share/arena.h>
#include <cowshed/share/immortal_ptr.h>
#include <cowshed/share/registry.h>

#include "family.h"
#include "machine.h"

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
  Objects() {
    const auto objects = got(arena.make_array<Object>(kObjects));
    for (std::size_t i = 0; i < kObjects; ++i) {
      refs.at(i) = got(publish(&objects[i]));
      pointers.at(i) = &objects[i];
      immortal.at(i) = ImmortalPtr<const Object>(&objects[i]);
      shared.at(i) = std::make_shared<const Object>(Object{i, {}, nullptr});
    }
    for (std::size_t i = 0; i < kObjects; ++i) {
      const std::size_t next = (i * 5 + 1) % kObjects;  // visits each, in no order
      objects[i] = {i, refs.at(next), pointers.at(next)};
    }
    got(arena.freeze());
  }

  Arena arena = got(Arena::create({.name = "deref", .capacity = 16_MiB}));
  std::array<Ref<Object>, kObjects> refs;
  std::array<const Object*, kObjects> pointers{};
  std::array<ImmortalPtr<const Object>, kObjects> immortal{};
  std::array<std::shared_ptr<const Object>, kObjects> shared{};
};

const Objects& objects() {
  static const Objects all;
  return all;
}

void finish(benchmark::State& state, std::uint64_t sum) {
  if (sum != static_cast<std::uint64_t>(state.iterations()) * (kObjects * (kObjects - 1) / 2))
    state.SkipWithError("a reference gave another object");
}

template <class Use>
void add_use(const std::string& name, Use use) {
  benchmark::RegisterBenchmark(("deref/" + name).c_str(), [use](benchmark::State& state) {
    pin_to_cpu(0);
    std::uint64_t sum = 0;
    for ([[maybe_unused]] auto _ : state) sum += use();
    unpin();
    state.counters["use_s"] = benchmark::Counter(
        kObjects, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
    finish(state, sum);
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
template <class Handle, class Next>
void add_chain(const std::string& name, const Handle& first, Next next) {
  add_use(name, [&first, next] {
    std::uint64_t sum = 0;
    Handle handle = first;
    for (std::size_t i = 0; i < kObjects; ++i) {
      const Object& object = *handle;
      sum += object.value;
      handle = next(object);
    }
    return sum;
  });
}

}  // namespace

void add_deref() {
  const auto value = [](const auto& pointer) { return pointer->value; };
  add_each("raw", objects().pointers, value);
  add_each("raw_again", objects().pointers, value);
  add_each("immortal_ptr", objects().immortal, value);
  add_each("ref", objects().refs, [](const Ref<Object>& ref) { return (*ref).value; });
  add_each("try_get", objects().refs, [](const Ref<Object>& ref) { return ref.try_get()->value; });
  add_each("get", objects().refs, [](const Ref<Object>& ref) { return (*ref.get())->value; });
  add_each("shared_ptr_copied", objects().shared, [](const std::shared_ptr<const Object>& pointer) {
    const std::shared_ptr<const Object> copy = pointer;  // NOLINT: measured
    benchmark::DoNotOptimize(copy.get());
    return copy->value;
  });
  add_chain("raw_chain", objects().pointers[0],
            [](const Object& object) { return object.next_raw; });
  add_chain("ref_chain", objects().refs[0], [](const Object& object) { return object.next; });
}

}  // namespace cowshed::bench
