#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "fill_malloc.h"
#include "fill_work.h"
#include "peer.h"

namespace cowshed::bench {

// Holds blocks that it allocated within a `Backend::Thread`, for children that free some of them
// with free(3); Backend::seal(), where there is one, comes between.  The facts have the "pages"
// that blocks lie in.  Questions:
//   {"do": "begin"}             forks a child: its "pid"
//   {"do": "free", "percent"}   it frees so many of the blocks, at random: "ns" for each
//   {"do": "check"}             the blocks that it has not freed are as they were
//   {"do": "end"}
template <class Backend>
class LateFrees final : public SubjectWork {
 public:
  explicit LateFrees(const nlohmann::json& configuration) {
    allocate(make_operations(configuration["mix"], 1), configuration["amount"]);
    std::shuffle(blocks_.begin(), blocks_.end(), std::mt19937(1));
    if constexpr (requires { backend_.seal(); }) backend_.seal();
  }

  nlohmann::json facts() const override {
    nlohmann::json result = malloc_facts();
    std::set<std::uintptr_t> pages;
    for (const Block& block : blocks_) {
      const auto first = reinterpret_cast<std::uintptr_t>(block.memory);
      for (auto page = first / 4096; page <= (first + block.size - 1) / 4096; ++page) {
        pages.insert(page);
      }
    }
    result["pages"] = pages.size();
    return result;
  }

  nlohmann::json answer(const nlohmann::json& question) override {
    const std::string what = question["do"];
    if (what == "begin") {
      child_ = std::make_unique<Peer>([this](std::uint64_t count) { return obey(count); });
      return {{"pid", child_->pid()}};
    }
    if (what == "end") {
      child_.reset();
      return nlohmann::json::object();
    }
    const std::size_t count =
        what == "check" ? kCheck : blocks_.size() * question["percent"].get<std::size_t>() / 100;
    child_->start(count);
    const std::uint64_t result = child_->result();
    if (what == "check" && result != 0) {
      throw std::runtime_error("a child's blocks are not what its parent wrote");
    }
    return {{"ns", static_cast<double>(result) / static_cast<double>(count)}};
  }

 private:
  static constexpr std::uint64_t kCheck = ~std::uint64_t{0};

  void allocate(const std::vector<Operation>& operations, std::size_t bytes) {
    typename Backend::Thread thread(backend_);
    for (std::size_t i = 0; bytes > 0; ++i) {
      const std::size_t size = operations[i % operations.size()].size;
      blocks_.push_back({thread.allocate(size), size});
      std::memset(blocks_.back().memory, mark(size), size);
      bytes -= std::min(bytes, size);
    }
  }

  static std::uint8_t mark(std::size_t size) { return static_cast<std::uint8_t>(size * 37 + 1); }

  // In the child.
  std::uint64_t obey(std::uint64_t count) {
    if (count == kCheck) {
      return static_cast<std::uint64_t>(
          std::count_if(blocks_.begin() + static_cast<std::ptrdiff_t>(freed_), blocks_.end(),
                        [](const Block& block) { return !is_whole(block); }));
    }
    const std::uint64_t before = now_ns();
    for (; freed_ < count; ++freed_) std::free(blocks_[freed_].memory);
    return now_ns() - before;
  }

  static bool is_whole(const Block& block) {
    const auto* bytes = static_cast<const std::uint8_t*>(block.memory);
    return std::all_of(bytes, bytes + block.size,
                       [&](std::uint8_t byte) { return byte == mark(block.size); });
  }

  Backend backend_;
  std::vector<Block> blocks_;  // in the order in which they are freed
  std::size_t freed_ = 0;      // of them, in the child
  std::unique_ptr<Peer> child_;
};

// What the configuration's pattern asks for.
template <class Backend>
std::unique_ptr<SubjectWork> make_fill_work(const nlohmann::json& configuration) {
  if (configuration["pattern"] == "late frees") {
    return std::make_unique<LateFrees<Backend>>(configuration);
  }
  return std::make_unique<FillWork<Backend>>(configuration);
}

}  // namespace cowshed::bench
