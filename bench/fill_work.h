#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <exception>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "family.h"
#include "machine.h"
#include "peer.h"
#include "subject.h"

// What a process of `fill` does, with one way to allocate.  `Backend` is shared by the threads;
// each gets its own `Backend::Thread(backend)`, with allocate(size) and deallocate(block, size).
namespace cowshed::bench {

// As words of a subject: fill PATTERN MIX THREADS AMOUNT WAY HUGE LIBRARY
struct FillOptions {
  std::string pattern;  // churn or fill
  std::string mix;      // small: 16 to 128 bytes, as nodes have; even: to 4 KiB, log-uniform
  unsigned threads;
  std::size_t amount;   // operations of each thread, or bytes in all
  std::string way;      // malloc, scope or arena
  bool huge;            // pages of 2 MiB instead of 4 KiB
  std::string library;  // part of the name of the file that malloc must be in

  explicit FillOptions(const Words& words)
      : pattern(words.at(0)),
        mix(words.at(1)),
        threads(static_cast<unsigned>(std::stoul(words.at(2)))),
        amount(std::stoull(words.at(3))),
        way(words.at(4)),
        huge(words.at(5) == "2M"),
        library(words.at(6)) {}
};

// malloc and free of this program: of libc, or of a library that replaces them.
struct Malloc {
  explicit Malloc(bool) {}
  class Thread {
   public:
    explicit Thread(Malloc&) {}
    void* allocate(std::size_t size) { return std::malloc(size); }
    void deallocate(void* block, std::size_t) { std::free(block); }
  };
  static void check_pages(bool huge, std::size_t bytes) { expect_pages(huge, bytes); }
};

template <class Backend>
class FillWork {
 public:
  using Thread = typename Backend::Thread;

  explicit FillWork(const FillOptions& options) : options_(options), backend_(options.huge) {
    Dl_info info = {};
    const bool found = dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) != 0;
    if (!found || std::string(info.dli_fname).find(options.library) == std::string::npos)
      throw std::runtime_error("malloc does not come from " + options.library);
    for (unsigned i = 0; i < options.threads; ++i) operations_.push_back(make_operations(i + 1));
    if (options.pattern == "churn")  // a process that fills is used once, and checked afterwards
      in_threads([this](unsigned index, Thread& thread) { return check(thread, index); });
  }

  // Nanoseconds per operation of one thread: a free and an allocation, or an allocation and
  // writing all of it.
  double measure() {
    return in_threads([this](unsigned index, Thread& thread) {
      return options_.pattern == "churn" ? churn(thread, index) : fill(thread, index);
    });
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

  std::vector<Operation> make_operations(std::uint32_t seed) const {
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> exponent(4, options_.mix == "small" ? 7 : 12);
    std::uniform_int_distribution<unsigned> slot(0, kSlots - 1);
    std::vector<Operation> operations(kOperations);
    for (auto& operation : operations) {
      operation.slot = static_cast<std::uint16_t>(slot(random));
      operation.size = static_cast<std::uint16_t>(std::lround(std::exp2(exponent(random))));
    }
    return operations;
  }

  // The slowest thread's result.  The first thread is the calling one: a malloc may be cheaper in a
  // process of one thread.
  template <class Body>
  double in_threads(Body body) {
    missing_ = options_.threads;
    std::vector<double> results(options_.threads);
    std::vector<std::exception_ptr> failures(options_.threads);
    const auto run = [&](unsigned index) {
      pin_to_cpu(index);
      try {
        Thread thread(backend_);
        results[index] = body(index, thread);
      } catch (...) {
        failures[index] = std::current_exception();
      }
    };
    std::vector<std::thread> others;
    for (unsigned i = 1; i < options_.threads; ++i) others.emplace_back(run, i);
    run(0);
    for (auto& other : others) other.join();
    for (const auto& failure : failures)
      if (failure) std::rethrow_exception(failure);
    return *std::max_element(results.begin(), results.end());
  }

  void wait_for_all() {
    missing_.fetch_sub(1);
    while (missing_.load(std::memory_order_acquire) != 0) {
    }
  }

  static void replace(Thread& thread, Block& block, std::size_t size) {
    if (block.memory != nullptr) thread.deallocate(block.memory, block.size);
    block = {thread.allocate(size), size};
    std::memcpy(block.memory, &size, sizeof size);
  }

  static void release(Thread& thread, std::vector<Block>& blocks) {
    for (auto& block : blocks)
      if (block.memory != nullptr) thread.deallocate(block.memory, block.size);
  }

  double churn(Thread& thread, unsigned index) {
    const auto& operations = operations_[index];
    std::vector<Block> blocks(kSlots);
    const auto pass = [&] {
      const std::uint64_t start = now_ns();
      for (const auto& operation : operations)
        replace(thread, blocks[operation.slot], operation.size);
      return static_cast<double>(now_ns() - start) / static_cast<double>(operations.size());
    };
    pass();  // every slot in use, every cache filled
    wait_for_all();
    std::vector<double> passes(std::max<std::size_t>(options_.amount / operations.size(), 1));
    for (double& time : passes) time = pass();
    release(thread, blocks);
    return median(passes);  // without the passes that were interrupted
  }

  // All of each block is written and read back: no block may overlap another.
  double check(Thread& thread, unsigned index) {
    std::vector<Block> blocks(kSlots);
    std::vector<std::uint8_t> marks(kSlots);
    std::uint8_t mark = 0;
    for (const auto& operation : operations_[index]) {
      Block& block = blocks[operation.slot];
      if (block.memory != nullptr) {
        expect(block, marks[operation.slot]);
        thread.deallocate(block.memory, block.size);
      }
      block = {thread.allocate(operation.size), operation.size};
      if (reinterpret_cast<std::uintptr_t>(block.memory) % alignof(std::max_align_t) != 0)
        throw std::runtime_error("a block is not aligned");
      marks[operation.slot] = ++mark;
      std::memset(block.memory, mark, block.size);
    }
    release(thread, blocks);
    return 0;
  }

  double fill(Thread& thread, unsigned index) {
    const std::size_t share = options_.amount / options_.threads;
    std::vector<Block> blocks;
    std::size_t bytes = 0;
    for (std::size_t i = 0; bytes < share; ++i) {
      blocks.push_back({nullptr, operations_[index][i % kOperations].size});
      bytes += blocks.back().size;
    }
    wait_for_all();
    const std::uint64_t start = now_ns();
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      blocks[i].memory = thread.allocate(blocks[i].size);
      std::memset(blocks[i].memory, static_cast<std::uint8_t>(i), blocks[i].size);
    }
    const auto took = static_cast<double>(now_ns() - start);
    for (std::size_t i = 0; i < blocks.size(); ++i) expect(blocks[i], static_cast<std::uint8_t>(i));
    if (index == 0) backend_.check_pages(options_.huge, share);
    return took / static_cast<double>(blocks.size());
  }

  static void expect(const Block& block, std::uint8_t mark) {
    const auto* bytes = static_cast<const std::uint8_t*>(block.memory);
    if (std::any_of(bytes, bytes + block.size, [mark](std::uint8_t b) { return b != mark; }))
      throw std::runtime_error("a block does not hold what was written to it");
  }

  FillOptions options_;
  Backend backend_;
  std::vector<std::vector<Operation>> operations_;
  std::atomic<unsigned> missing_ = 0;
};

template <class Backend>
Answer fill_answer(const FillOptions& options) {
  if (!options.huge) use_small_pages();
  const auto work = std::make_shared<FillWork<Backend>>(options);
  return [work](const Words&) -> std::vector<double> { return {work->measure()}; };
}

}  // namespace cowshed::bench
