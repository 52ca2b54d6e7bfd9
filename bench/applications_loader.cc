#include "applications_loader.h"

#include <fmt/format.h>
#include <optional>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

#include <cowshed/base/size_literals.h>
#include <cowshed/share/arena.h>
#include <cowshed/share/arena_allocator.h>
#include <cowshed/share/immortal_ptr.h>

#include "applications_batches.h"
#include "applications_samples.h"
#include "crew.h"
#include "got.h"
#include "peer.h"

namespace cowshed::bench {
namespace {

using nlohmann::json;
using namespace size_literals;

constexpr std::size_t kMostOfSample = 6_KiB;  // in the arena
constexpr std::size_t kAhead = 2;             // orders for each worker, as torch's prefetch_factor

class HeapSamples {
 public:
  explicit HeapSamples(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      samples_.push_back(std::make_shared<const std::vector<std::byte>>(make_sample(i)));
    }
  }
  std::shared_ptr<const std::vector<std::byte>> at(std::size_t number) const {
    return samples_.at(number);
  }

 private:
  std::vector<std::shared_ptr<const std::vector<std::byte>>> samples_;
};

class ArenaSamples {
 public:
  using Sample = std::vector<std::byte, ArenaAllocator<std::byte>>;

  explicit ArenaSamples(std::size_t count)
      : arena_(
            got(Arena::create({.name = "samples", .capacity = count * kMostOfSample + 64_MiB}))) {
    {
      const UseArena use(arena_);
      samples_ = got(arena_.make<Samples>());
      for (std::size_t i = 0; i < count; ++i) {
        const auto bytes = make_sample(i);
        samples_->emplace_back(got(arena_.make<Sample>(bytes.begin(), bytes.end())));
      }
    }
    got(arena_.freeze());
  }
  ImmortalPtr<const Sample> at(std::size_t number) const { return samples_->at(number); }

 private:
  using Samples = std::vector<ImmortalPtr<const Sample>, ArenaAllocator<ImmortalPtr<const Sample>>>;

  Arena arena_;
  Samples* samples_ = nullptr;
};

template <class Samples>
class LoaderWork final : public SubjectWork {
 public:
  explicit LoaderWork(const json& configuration)
      : workers_(configuration["workers"]),
        orders_(epoch_orders(configuration["samples"])),
        samples_(configuration["samples"].get<std::size_t>()),
        lanes_(make_batch_lanes(configuration["lanes"], workers_)) {}

  json facts() const override { return {{"pid", getpid()}}; }

  json answer(const json& question) override {
    if (question["do"] == "begin") {
      crew_.emplace(workers_, [this](std::uint64_t rank, std::uint64_t) { return load(rank); });
      return {{"pids", crew_->pids()}};
    }
    if (question["do"] == "use") return epoch();
    crew_.reset();
    return json::object();
  }

 private:
  json epoch() {
    const std::uint64_t before = now_ns();
    crew_->start(0);
    std::size_t next = 0;
    const auto order = [&](std::uint64_t worker) {
      if (next < orders_.size()) lanes_->send_order(worker, orders_[next++]);
    };
    for (std::size_t i = 0; i < kAhead * workers_; ++i) order(i % workers_);
    std::uint64_t sum = 0;
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < orders_.size(); ++i) {
      const BatchLanes::Batch batch = lanes_->receive();
      order(batch.worker);
      sum += weighted(batch.number, batch_sum(batch.bytes));
      bytes += batch.bytes.size();
    }
    for (std::size_t i = 0; i < workers_; ++i) lanes_->send_order(i, {});
    std::uint64_t samples = 0;
    for (const std::uint64_t loaded : crew_->results()) samples += loaded;
    const auto ns = static_cast<double>(now_ns() - before);
    const double copied = static_cast<double>(lanes_->in_place() ? 0 : bytes);
    return {{"sum", sum},
            {"figures",
             {{"samples", static_cast<double>(samples) / (ns / 1e6)},
              {"copied batches", copied / static_cast<double>(1_MiB)}}}};
  }

  // In a worker: how many samples.
  std::uint64_t load(std::uint64_t rank) {
    std::uint64_t loaded = 0;
    for (;;) {
      const BatchOrder order = lanes_->take_order(rank);
      if (order.count == 0) return loaded;
      load_batch(rank, order);
      loaded += order.count;
    }
  }

  void load_batch(std::uint64_t rank, const BatchOrder& order) {
    std::vector<decltype(samples_.at(0))> samples;
    std::size_t size = 0;
    for (std::size_t i = 0; i < order.count; ++i) {
      samples.push_back(samples_.at(order.samples[i]));
      size += 2 * samples.back()->size();
    }
    lanes_->send_batch(rank, order.number, size, [&](std::span<std::byte> batch) {
      std::byte* to = batch.data();
      for (const auto& sample : samples) {
        decode({sample->data(), sample->size()}, to);
        to += 2 * sample->size();
      }
    });
  }

  std::size_t workers_;
  std::vector<BatchOrder> orders_;
  Samples samples_;
  std::unique_ptr<BatchLanes> lanes_;
  std::optional<Crew> crew_;
};

}  // namespace

Application data_loader(bool quick, Report& report) {
  const json load =
      quick ? json{{"samples", 1000}, {"workers", 2}} : json{{"samples", 32000}, {"workers", 4}};
  report.setting(
      "data loader",
      fmt::format(
          "{} samples of 256 to 4,092 bytes; {} workers look up {} at a time in an order "
          "that is shuffled, decode each to twice its size, and send the batch to the parent, "
          "which reads all of it; {} batches ahead for each worker. One epoch, and its "
          "checksum",
          load["samples"].dump(), load["workers"].dump(), kBatchSamples, kAhead));
  report.setting("data loader/copied batches", "bytes that were copied from process to process");
  report.setting(
      "data loader, its ways",
      "arena: a vector of ImmortalPtr to the samples, frozen (strict); shared_ptr: a vector of "
      "std::shared_ptr on glibc's heap, forked; channel: batches are decoded into buffers of a "
      "Channel<Bytes> and move; pipe: one of 1 MiB for each worker, poll; Python: "
      "/usr/bin/python3, a list of bytes, forked after gc.freeze(), bytes.translate() and a slice "
      "to decode, multiprocessing.Queue for orders and batches. torch's own loader works so, but "
      "moves tensors by shared memory; it is not measured");
  const json arena = {{"memory", "arena"}};
  const json heap = {{"memory", "heap"}};
  const auto by = [](json memory, const char* lanes) {
    memory["lanes"] = lanes;
    return memory;
  };
  return {.name = "data loader",
          .ways = {{"arena, channel", by(arena, "channel")},
                   {"arena, pipe", by(arena, "pipe")},
                   {"shared_ptr, channel", by(heap, "channel")},
                   {"shared_ptr, pipe", by(heap, "pipe")},
                   {"Python", json::object(), {}, "applications_python"},
                   {"arena, channel again", by(arena, "channel")}},
          .load = load,
          .metrics = {{"samples", "thousand/s"}, {"copied batches", "MiB", false}},
          .counted = {{"copied pages"}},
          .check = [right = right_epoch_sum(load["samples"])](const json&, const json& use) {
            if (use["sum"] != right) throw std::runtime_error("an epoch's checksum is wrong");
          }};
}

std::unique_ptr<SubjectWork> make_loader_work(const json& configuration) {
  if (configuration["memory"] == "arena") {
    return std::make_unique<LoaderWork<ArenaSamples>>(configuration);
  }
  return std::make_unique<LoaderWork<HeapSamples>>(configuration);
}

}  // namespace cowshed::bench
