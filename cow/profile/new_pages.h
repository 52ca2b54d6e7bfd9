#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include <cowshed/cow/causes/new_memory.h>

namespace cowshed::cow {

struct SampledStack;

// The sampled pages of new memory of a process: which of them it holds now, and which it held when
// it held most.  With each sample the kernel tells how much new memory there was.  If that is less
// than the samples stand for, some was given back: the latest, as the buffer of a request is, until
// a look at the pages tells better.  One thread at a time.
class NewPages {
 public:
  static constexpr std::uint64_t kNever = ~std::uint64_t{0};
  struct Piece {
    const SampledStack* stack = nullptr;
    std::uint64_t address = 0;
    std::uint64_t pages = 0;  // for which it stands
    std::uint64_t came = 0;   // as the next, counts the pieces
    std::uint64_t gone = kNever;
    NewPage state = NewPage::held;  // or an allocator holds it free, as of the last look
  };
  // A look at the process's pages.
  struct Look {
    std::function<bool(std::uint64_t)> is_there;  // a page at an address
    std::function<NewPage(std::uint64_t)> state;  // whether it is held free; empty: as before
    std::uint64_t held = 0;                       // pages of new memory
  };

  // Adds a sample.  `held`: the pages of new memory that the process had then.  `is_of_many`: it
  // stands for several that were missed.
  void add(const SampledStack* stack, std::uint64_t address, std::uint64_t pages,
           std::uint64_t held, bool is_of_many = false);

  // Corrects what it holds by a look at its addresses, of which some may have new pages by now.
  // What the process has beyond what is there, mremap(2) has moved.
  void look(const Look& look);

  // Takes the pages of new memory that the process had at its end.  What the last look saw it held
  // until it ended: an interpreter then frees all that it has.
  void end(std::uint64_t held);

  // Corrects what it holds without a look, by what the samples tell of each other.
  void settle() {
    count([](std::uint64_t) { return true; }, held_ + others_);
  }

  // Calls `visit` with each piece that it holds or, `at_most`, that it held when it held most.
  void visit(bool at_most, const std::function<void(const Piece&)>& visit) const;

  bool empty() const { return pieces_.empty(); }

 private:
  void count(const std::function<bool(std::uint64_t)>& is_there, std::uint64_t held);
  std::uint64_t slack() const;
  void count_held();
  void give_back(std::uint64_t pages, std::uint64_t since = 0);  // only of what came since then
  void forget_the_gone();

  std::vector<Piece> pieces_;  // in order of time
  std::uint64_t came_ = 0;
  std::uint64_t looked_at_ = 0;   // came_ at the last look
  std::uint64_t most_pages_ = 0;  // of one sample
  std::uint64_t held_ = 0;        // pages of the pieces that it holds
  std::uint64_t others_ = 0;      // pages of no sample, as of mlock(2)
  std::uint64_t held_at_most_ = 0;
  std::uint64_t most_at_ = 0;     // came_ then
  std::size_t forgotten_at_ = 0;  // the number of pieces that was left
};

}  // namespace cowshed::cow
