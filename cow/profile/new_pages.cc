#include <algorithm>
#include <deque>
#include <map>
#include <ranges>

#include <cowshed/cow/measurement.h>
#include <cowshed/cow/profile/new_pages.h>

namespace cowshed::cow {
namespace {

using Piece = NewPages::Piece;

bool is_held(const Piece& piece) { return piece.gone == NewPages::kNever; }

// The pieces of 4 MiB, oldest first.
struct Neighbours {
  std::deque<Piece*> pieces;
  std::uint64_t pages = 0;

  static constexpr std::uint64_t kBytes = 4 << 20;
  // Where samples stand for more pages than there are, the oldest were given back.  `most`: of a
  // sample.
  void add(Piece& piece, std::uint64_t most, std::vector<Piece*>& crowded) {
    const std::uint64_t there = std::max(kBytes / kPageSize, most);
    pieces.push_back(&piece);
    pages += piece.pages;
    while (pages > there + pieces.front()->pages) {
      pieces.front()->gone = piece.came - 1;
      crowded.push_back(pieces.front());
      pages -= pieces.front()->pages;
      pieces.pop_front();
    }
  }
};

// Takes the latest for held after all.
void restore(const std::vector<Piece*>& pieces, std::uint64_t& missing) {
  for (Piece* piece : pieces | std::views::reverse) {
    if (missing < piece->pages) break;
    missing -= piece->pages;
    piece->gone = NewPages::kNever;
  }
}

}  // namespace

// A sample stands for pages before and after it, in each thread.
std::uint64_t NewPages::slack() const {
  constexpr std::uint64_t kThreads = 2;
  constexpr std::uint64_t kPart = 32;
  return std::max(kThreads * most_pages_, held_ / kPart);
}

void NewPages::count_held() {
  held_ = 0;
  for (const Piece& piece : pieces_) held_ += is_held(piece) ? piece.pages : 0;
}

void NewPages::give_back(std::uint64_t pages, std::uint64_t since) {
  for (Piece& piece : pieces_ | std::views::reverse) {
    if (!is_held(piece)) continue;
    if (pages < piece.pages / 2 || piece.came <= since) break;
    piece.gone = came_;
    held_ -= piece.pages;
    pages -= std::min(pages, piece.pages);
  }
}

void NewPages::add(const SampledStack* stack, std::uint64_t address, std::uint64_t pages,
                   std::uint64_t held, bool is_of_many) {
  if (!is_of_many) most_pages_ = std::max(most_pages_, pages);
  if (held_ + pages + others_ > held + slack()) {
    give_back(held_ + pages + others_ - held);
    others_ = std::min(others_, held - std::min(held, held_ + pages));
  }
  pieces_.push_back({stack, address, pages, ++came_});
  held_ += pages;
  if (held > held_ + others_ + slack()) others_ = held - held_;
  // Of times when it held as much, the last.
  held_at_most_ = std::max(held_at_most_, held);
  if (held + slack() >= held_at_most_) most_at_ = came_;
  constexpr std::size_t kMany = 4096;
  if (pieces_.size() > kMany + 2 * forgotten_at_) forget_the_gone();
}

// What was given back before it held most is in neither answer.
void NewPages::forget_the_gone() {
  std::erase_if(pieces_, [this](const Piece& piece) { return piece.gone < most_at_; });
  forgotten_at_ = pieces_.size();
}

void NewPages::look(const Look& look) {
  if (look.state)
    for (Piece& piece : pieces_) piece.state = look.state(piece.address);
  count(look.is_there, look.held);
}

void NewPages::count(const std::function<bool(std::uint64_t)>& is_there, std::uint64_t held) {
  std::map<std::uint64_t, Neighbours> blocks;
  std::vector<Piece*> guesses;
  std::vector<Piece*> absent;
  std::vector<Piece*> crowded;
  for (Piece& piece : pieces_) {
    if (!is_held(piece)) {
      if (piece.gone >= looked_at_) guesses.push_back(&piece);
    } else if (!is_there(piece.address)) {
      absent.push_back(&piece);
    } else {
      blocks[piece.address / Neighbours::kBytes].add(piece, most_pages_, crowded);
    }
  }
  std::uint64_t there = 0;
  for (const auto& [number, block] : blocks) there += block.pages;
  std::uint64_t missing = held - std::min(held, there + others_);
  if (missing <= slack()) missing = 0;
  std::erase_if(guesses, [&](const Piece* piece) { return !is_there(piece->address); });
  restore(guesses, missing);
  for (Piece* piece : absent) piece->gone = came_;
  restore(absent, missing);
  restore(crowded, missing);
  count_held();
  looked_at_ = came_;
}

void NewPages::end(std::uint64_t held) {
  if (held_ > held + slack()) give_back(held_ - held, looked_at_);
}

void NewPages::visit(bool at_most, const std::function<void(const Piece&)>& visit) const {
  std::map<std::uint64_t, std::uint64_t> again;  // that came in their places, by block
  for (const Piece& piece : pieces_)
    if (is_held(piece) && piece.came > most_at_)
      again[piece.address / Neighbours::kBytes] += piece.pages;
  for (Piece piece : pieces_) {
    if (at_most ? piece.came > most_at_ || piece.gone < most_at_ : !is_held(piece)) continue;
    std::uint64_t& pages = again[piece.address / Neighbours::kBytes];
    if (!is_held(piece) && piece.pages <= pages) {
      pages -= piece.pages;
      piece.gone = kNever;
    }
    visit(piece);
  }
}

}  // namespace cowshed::cow
