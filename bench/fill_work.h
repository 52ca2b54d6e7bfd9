#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
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
#include <utility>
#include <vector>

#include "machine.h"
#include "statistics.h"
#include "subject.h"

// What a subject of `fill` does, with one way to allocate.  `Backend` is shared by the threads;
// each gets its own `Backend::Thread(backend)`, with allocate(size) and deallocate(block, size).
namespace cowshed::bench {

// malloc and free of this program: of libc, or of a library that replaces them.
struct Malloc {
  class Thread {
   public:
    explicit Thread(Malloc&) {}
    void* allocate(std::size_t size) { return std::malloc(size); }
    void deallocate(void* block, std::size_t) { std::free(block); }
  };
};

constexpr std::size_t kSlots = 4096;            // blocks alive at once while they churn, per thread
constexpr std::size_t kOperations = 1U << 16U;  // prepared ones, repeated

struct Operation {
  std::uint16_t slot;
  std::uint16_t size;
};

// small: 16 to 128 bytes, as nodes have.  even: 16 bytes to 4 KiB, each size class as frequent as
// any other.
inline std::vector<Operation> make_operations(const std::string& mix, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<double> exponent(4, mix == "small" ? 7 : 12);
  std::uniform_int_distribution<unsigned> slot(0, kSlots - 1);
  std::vector<Operation> operations(kOperations);
  for (auto& operation : operations) {
    operation.slot = static_cast<std::uint16_t>(slot(random));
    operation.size = static_cast<std::uint16_t>(std::lround(std::exp2(exponent(random))));
  }
  return operations;
}

struct Block {
  void* memory = nullptr;
  std::size_t size = 0;
};

// Whoever comes last lets all go.
class StartingLine {
 public:
  explicit StartingLine(unsigned threads) : missing_(threads) {}
  void wait() {
    missing_.fetch_sub(1);
    while (missing_.load(std::memory_order_acquire) != 0) {
    }
  }

 private:
  std::atomic<unsigned> missing_;
};

template <class Backend>
class FillWork final : public SubjectWork {
 public:
  explicit FillWork(const nlohmann::json& configuration)
      : pattern_(configuration["pattern"]),
        threads_(configuration["threads"]),
        amount_(configuration["amount"]) {
    for (unsigned i = 0; i < threads_; ++i)
      operations_.push_back(make_operations(configuration["mix"], i + 1));
    // A fresh process is used once where it fills, so it checks what it has filled instead.
    if (pattern_ == "churn") {
      in_threads([this](unsigned index, typename Backend::Thread& thread, StartingLine& line) {
        check(thread, operations_[index], line);
        return 0.0;
      });
    }
  }

  nlohmann::json facts() const override {  // the file that malloc is in
    Dl_info info = {};
    const bool found = dladdr(dlsym(RTLD_DEFAULT, "malloc"), &info) != 0;
    return {{"malloc", found ? info.dli_fname : "nobody known"}};
  }

  // Nanoseconds per operation of one thread: a free and an allocation, or an allocation and
  // writing all of it.
  nlohmann::json answer(const nlohmann::json&) override {
    const double ns =
        in_threads([this](unsigned index, typename Backend::Thread& thread, StartingLine& line) {
          return pattern_ == "churn" ? churn(thread, operations_[index], line)
                                     : fill(thread, operations_[index], line);
        });
    if (pattern_ == "fill") expect_huge_pages(amount_);
    return {{"ns", ns}};
  }

 private:
  using Clock = std::chrono::steady_clock;

  static double ns_since(Clock::time_point start) {
    return std::chrono::duration<double, std::nano>(Clock::now() - start).count();
  }

  // The slowest thread's result.  The first thread is the calling one: a malloc that is cheaper in
  // a process of one thread may be so.
  template <class Body>
  double in_threads(Body body) {
    StartingLine line(threads_);
    std::vector<double> results(threads_);
    std::vector<std::exception_ptr> failures(threads_);
    const auto run = [&](unsigned index) {
      pin_to_cpu(index);
      try {
        typename Backend::Thread thread(backend_);
        results[index] = body(index, thread, line);
      } catch (...) {
        failures[index] = std::current_exception();
      }
    };
    std::vector<std::thread> others;
    for (unsigned i = 1; i < threads_; ++i) others.emplace_back(run, i);
    run(0);
    for (auto& other : others) other.join();
    for (const auto& failure : failures)
      if (failure) std::rethrow_exception(failure);
    return *std::max_element(results.begin(), results.end());
  }

  static void replace(typename Backend::Thread& thread, Block& block, std::size_t size) {
    if (block.memory != nullptr) thread.deallocate(block.memory, block.size);
    block.memory = thread.allocate(size);
    block.size = size;
    std::memcpy(block.memory, &size, sizeof size);
  }

  static void release(typename Backend::Thread& thread, std::vector<Block>& blocks) {
    for (auto& block : blocks)
      if (block.memory != nullptr) thread.deallocate(block.memory, block.size);
  }

  double churn(typename Backend::Thread& thread, const std::vector<Operation>& operations,
               StartingLine& line) {
    std::vector<Block> blocks(kSlots);
    for (const auto& operation : operations)  // warm: every slot in use, every cache filled
      replace(thread, blocks[operation.slot], operation.size);
    line.wait();
    std::vector<double> passes(amount_ / operations.size());  // of these the median: no preemption
    for (double& pass : passes) {
      const auto start = Clock::now();
      for (const auto& operation : operations)
        replace(thread, blocks[operation.slot], operation.size);
      pass = ns_since(start) / static_cast<double>(operations.size());
    }
    release(thread, blocks);
    return median(passes);
  }

  // All of each block is written and read back: no block may overlap another.
  void check(typename Backend::Thread& thread, const std::vector<Operation>& operations,
             StartingLine& line) {
    line.wait();
    std::vector<Block> blocks(kSlots);
    std::vector<std::uint8_t> marks(kSlots);
    std::uint8_t mark = 0;
    for (const auto& operation : operations) {
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
  }

  double fill(typename Backend::Thread& thread, const std::vector<Operation>& operations,
              StartingLine& line) {
    const std::size_t share = amount_ / threads_;
    std::vector<Block> blocks;
    std::size_t bytes = 0;
    for (std::size_t i = 0; bytes < share; ++i) {
      blocks.push_back({nullptr, operations[i % operations.size()].size});
      bytes += blocks.back().size;
    }
    line.wait();
    const auto start = Clock::now();
    for (std::size_t i = 0; i < blocks.size(); ++i) {
      blocks[i].memory = thread.allocate(blocks[i].size);
      std::memset(blocks[i].memory, static_cast<std::uint8_t>(i), blocks[i].size);
    }
    const double ns = ns_since(start);
    for (std::size_t i = 0; i < blocks.size(); ++i) expect(blocks[i], static_cast<std::uint8_t>(i));
    return ns / static_cast<double>(blocks.size());
  }

  static void expect(const Block& block, std::uint8_t mark) {
    const auto* bytes = static_cast<const std::uint8_t*>(block.memory);
    if (std::any_of(bytes, bytes + block.size, [mark](std::uint8_t b) { return b != mark; }))
      throw std::runtime_error("a block does not hold what was written to it");
  }

  Backend backend_;
  std::string pattern_;
  unsigned threads_;
  std::size_t amount_;  // operations per thread, or bytes in all
  std::vector<std::vector<Operation>> operations_;
};

}  // namespace cowshed::bench
