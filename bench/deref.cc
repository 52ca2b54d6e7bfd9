#include <array>
#include <chrono>
#include <cstdint>
#include <fmt/format.h>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/registry.h>

#include "machine.h"
#include "program.h"

// What it costs to use a reference, checks and all, where a raw pointer would do.
namespace cowshed::bench {
namespace {

using nlohmann::json;

constexpr std::size_t kObjects = 256;  // their references and slots fit the first cache
constexpr std::size_t kUses = 1U << 20U;

struct Object {
  std::uint64_t value;
  Ref<Object> next;  // round all of them
  const Object* next_raw;
};

class DerefWork final : public SubjectWork {
 public:
  explicit DerefWork(const json&) {
    pin_to_cpu(0);
    auto objects = arena_.make_array<Object>(kObjects).value();
    for (std::size_t i = 0; i < kObjects; ++i) {
      refs_.at(i) = publish(&objects[i]).value();
      pointers_.at(i) = &objects[i];
    }
    for (std::size_t i = 0; i < kObjects; ++i) {
      const std::size_t next = (i * 5 + 1) % kObjects;  // visits each, in no order
      objects[i] = {i, refs_.at(next), pointers_.at(next)};
    }
    if (auto frozen = arena_.freeze(); !frozen) throw std::runtime_error(frozen.error().message);
  }

  json answer(const json& question) override {
    const std::string use = question["use"];
    if (use == "raw pointer" || use == "raw pointer again") {
      return each(pointers_, [](const Object* object) { return object->value; });
    }
    if (use == "*ref") {
      return each(refs_, [](const Ref<Object>& ref) { return (*ref).value; });
    }
    if (use == "try_get()") {
      return each(refs_, [](const Ref<Object>& ref) { return ref.try_get()->value; });
    }
    if (use == "get()") {
      return each(refs_, [](const Ref<Object>& ref) { return (*ref.get())->value; });
    }
    if (use == "raw chain" || use == "raw chain again") {
      return chain(pointers_[0], [](const Object& object) { return object.next_raw; });
    }
    return chain(refs_[0], [](const Object& object) { return object.next; });
  }

 private:
  // Nanoseconds a use; the compiler must load each pointer or reference anew, as a program does.
  template <class Handles, class Read>
  static json each(const Handles& handles, Read read) {
    return timed([&] {
      std::uint64_t sum = 0;
      for (std::size_t round = 0; round < kUses / kObjects; ++round) {
        for (const auto& handle : handles) {
          sum += read(handle);
        }
        asm volatile("" : : : "memory");
      }
      return sum;
    });
  }

  // One after the other: what the next one is stands in the object.
  template <class Handle, class Next>
  static json chain(Handle handle, Next next) {
    return timed([&] {
      std::uint64_t sum = 0;
      for (std::size_t i = 0; i < kUses; ++i) {
        const Object& object = *handle;
        sum += object.value;
        handle = next(object);
      }
      return sum;
    });
  }

  template <class Body>
  static json timed(Body body) {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    const std::uint64_t sum = body();
    const std::chrono::duration<double, std::nano> took = Clock::now() - start;
    if (sum != kUses / kObjects * (kObjects * (kObjects - 1) / 2)) {
      throw std::runtime_error("a reference gave another object");
    }
    return nanoseconds(took.count() / static_cast<double>(kUses));
  }

  Arena arena_ = Arena::create({.name = "deref", .capacity = 16_MiB}).value();
  std::array<Ref<Object>, kObjects> refs_;
  std::array<const Object*, kObjects> pointers_{};
};

std::unique_ptr<SubjectWork> make_work(const json& configuration) {
  return std::make_unique<DerefWork>(configuration);
}

void measure_group(const std::string& group, const std::string& rival,
                   const std::vector<std::string>& uses, const Options& options, Report& report) {
  if (!options.wants(group)) return;
  Subject subject({});
  std::vector<Variant> variants;
  const auto add = [&](const std::string& use) {
    variants.push_back({use, [&subject, use] {
                          return subject.ask({{"use", use}})["ns"].get<double>();
                        }});
  };
  add(rival);
  for (const auto& use : uses) add(use);
  add(rival + " again");
  const auto samples = interleave(variants, options.pairs);
  for (const auto& [name, values] : samples) {
    report.figure(group, name, median(values), "ns");
  }
  for (const auto& use : uses) {
    const auto added = compare(samples_of(samples, use), samples_of(samples, rival));
    report.goal({fmt::format("{}: {} adds to a {}", group, use, rival), Goal::Bound::at_most, 1,
                 "ns", group},
                added.difference, added.difference_interval);
  }
  report.control(group, compare(samples_of(samples, rival + " again"), samples_of(samples, rival)));
}

void measure(const Options& options, Report& report) {
  report.setting("independent", fmt::format("a sum over {} objects of 32 bytes, by an array of "
                                            "references or pointers to them",
                                            kObjects));
  report.setting("chained",
                 "each object holds the reference or pointer to the next one: the whole "
                 "latency of a use");
  measure_group("independent", "raw pointer", {"*ref", "try_get()", "get()"}, options, report);
  measure_group("chained", "raw chain", {"*ref chain"}, options, report);
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_program(argc, argv,
                                     {.name = "deref",
                                      .question = "what a reference costs, against a raw pointer",
                                      .pairs = 63,
                                      .measure = cowshed::bench::measure,
                                      .make_work = cowshed::bench::make_work});
}
