#pragma once

#include <barrier>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <future>
#include <memory>
#include <random>

#include "../family.h"
#include "../process.h"
#include "../subject.h"

namespace cowshed::bench {

// What a process of `fill` does, with one way to allocate.  The threads share a `Backend`, with
// allocate(size), deallocate(block, size) and huge_bytes(), its memory in pages of 2 MiB.  Each
// keeps what its enter() returns.
template <class Backend>
class FillWork {
 public:
  // PATTERN THREADS AMOUNT PAGES LIBRARY: churn or fill; operations of each thread, or bytes in
  // all; 2M or 4K; part of the name of the file that malloc must be in.
  explicit FillWork(const Words& words)
      : churns_(words.at(0) == "churn"),
        threads_(std::stoul(words.at(1))),
        amount_(std::stoull(words.at(2))),
        huge_(words.at(3) == "2M"),
        backend_(huge_),
        all_(static_cast<std::ptrdiff_t>(threads_)) {
    if (!huge_) use_small_pages();
    Dl_info info = {};
    const bool found = dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) != 0;
    if (!found || std::string(info.dli_fname).find(words.at(4)) == std::string::npos)
      throw std::runtime_error("malloc does not come from " + words[4]);
    for (std::size_t i = 0; i < threads_; ++i) {
      operations_.push_back(make_operations(i + 1));
      blocks_.emplace_back(churns_ ? kSlots : count_to_fill(operations_[i]));
    }
    if (churns_) in_threads(&FillWork::check);  // what fills is new, and checked afterwards
  }

  // Nanoseconds per operation of one thread: a free and an allocation, or an allocation and
  // writing all of it.
  double measure() {
    if (churns_) return in_threads(&FillWork::churn);
    const std::size_t huge_before = backend_.huge_bytes();
    const std::size_t resident_before = proc_bytes("/proc/self/smaps_rollup", "Rss");
    const double took = in_threads(&FillWork::fill);
    const std::size_t least = amount_ / 10 * 9;
    if (proc_bytes("/proc/self/smaps_rollup", "Rss") < resident_before + least)
      throw std::runtime_error("the filled memory is not new");
    const std::size_t huge = backend_.huge_bytes();
    if (huge_ ? huge < huge_before + least : huge != huge_before)
      throw std::runtime_error(std::to_string(huge >> 20U) + " MiB are in 2 MiB pages");
    return took;
  }

 private:
  static constexpr std::size_t kSlots = 4096;  // blocks alive while they churn, per thread
  static constexpr std::size_t kOperations = 1U << 16U;  // prepared ones, repeated

  struct Operation {
    std::uint16_t slot;
    std::uint16_t size;
  };
  struct Block {
    void* memory = nullptr;
    std::size_t size = 0;
  };

  // 16 to 128 bytes, as nodes have.
  static std::vector<Operation> make_operations(std::size_t seed) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> exponent(4, 7);
    std::uniform_int_distribution<std::uint16_t> slot(0, kSlots - 1);
    std::vector<Operation> operations(kOperations);
    for (auto& operation : operations)
      operation = {slot(random), static_cast<std::uint16_t>(std::exp2(exponent(random)))};
    return operations;
  }

  std::size_t count_to_fill(const std::vector<Operation>& operations) const {
    std::size_t count = 0;
    for (std::size_t bytes = 0; bytes < amount_ / threads_; ++count)
      bytes += operations[count % kOperations].size;
    return count;
  }

  // The slowest thread's result.  The first thread is the calling one: a malloc may be cheaper in a
  // process of one thread.
  double in_threads(double (FillWork::*body)(std::size_t)) {
    const auto run = [this, body](std::size_t index) {
      pin_to_cpu(index);
      [[maybe_unused]] const auto entered = backend_.enter();
      return (this->*body)(index);
    };
    std::vector<std::future<double>> others;
    for (std::size_t i = 1; i < threads_; ++i)
      others.push_back(std::async(std::launch::async, run, i));
    double slowest = run(0);
    for (auto& other : others) slowest = std::max(slowest, other.get());
    return slowest;
  }

  void replace(Block& block, std::size_t size) {
    if (block.memory != nullptr) backend_.deallocate(block.memory, block.size);
    block = {backend_.allocate(size), size};
    std::memcpy(block.memory, &size, sizeof size);
  }

  void release(std::vector<Block>& blocks) {
    for (auto& block : blocks)
      if (block.memory != nullptr) backend_.deallocate(block.memory, block.size);
    blocks.assign(kSlots, {});
  }

  double churn(std::size_t index) {
    const auto& operations = operations_[index];
    std::vector<Block>& blocks = blocks_[index];
    const auto pass = [&] {
      const std::uint64_t start = now_ns();
      for (const auto& operation : operations) replace(blocks[operation.slot], operation.size);
      return static_cast<double>(now_ns() - start) / kOperations;
    };
    pass();  // every slot in use, every cache filled
    all_.arrive_and_wait();
    std::vector<double> passes(std::max<std::size_t>(amount_ / kOperations, 1));
    for (double& time : passes) time = pass();
    release(blocks);
    return median(passes);  // without the passes that were interrupted
  }

  // All of each block is written and read back: no block may overlap another.
  double check(std::size_t index) {
    std::vector<Block>& blocks = blocks_[index];
    for (const auto& operation : operations_[index]) {
      Block& block = blocks[operation.slot];
      expect(block, operation.slot);
      replace(block, operation.size);
      std::memset(block.memory, static_cast<std::uint8_t>(operation.slot), block.size);
    }
    release(blocks);
    return 0;
  }

  double fill(std::size_t index) {
    std::vector<Block>& blocks = blocks_[index];
    for (std::size_t i = 0; i < blocks.size(); ++i)
      blocks[i].size = operations_[index][i % kOperations].size;
    all_.arrive_and_wait();
    const std::uint64_t start = now_ns();
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      blocks[i].memory = backend_.allocate(blocks[i].size);
      std::memset(blocks[i].memory, static_cast<std::uint8_t>(i), blocks[i].size);
    }
    const auto took = static_cast<double>(now_ns() - start);
    for (std::size_t i = 0; i < blocks.size(); ++i) expect(blocks[i], i);
    return took / static_cast<double>(blocks.size());
  }

  static void expect(const Block& block, std::size_t mark) {
    const auto* bytes = static_cast<const std::uint8_t*>(block.memory);
    if (std::any_of(bytes, bytes + block.size,
                    [mark](auto byte) { return byte != static_cast<std::uint8_t>(mark); }))
      throw std::runtime_error("a block does not hold what was written to it");
  }

  const bool churns_;
  const std::size_t threads_;
  const std::size_t amount_;
  const bool huge_;
  Backend backend_;
  std::barrier<> all_;
  std::vector<std::vector<Operation>> operations_;
  std::vector<std::vector<Block>> blocks_;  // of each thread; not in the memory that is measured
};

template <class Backend>
Answer fill_answer(const Words& words) {
  const auto work = std::make_shared<FillWork<Backend>>(words);
  return [work](const Words&) -> std::vector<double> { return {work->measure()}; };
}

}  // namespace cowshed::bench
