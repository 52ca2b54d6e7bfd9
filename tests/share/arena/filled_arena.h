#pragma once

#include <cowshed/tests/share/share.h>

namespace cowshed::test {

// An arena and blocks of known bytes in it.
class FilledArena {
 public:
  static constexpr std::size_t kBlock = 64_KiB;

  explicit FilledArena(std::size_t capacity) : arena_(make_arena("subject", capacity)) {}

  Arena& operator*() { return arena_; }
  Arena* operator->() { return &arena_; }
  std::size_t bytes() const { return blocks_.size() * kBlock; }

  void add_block() {
    auto* block = static_cast<unsigned char*>(arena_.allocate(kBlock, 4096));
    std::memset(block, mark(blocks_.size()), kBlock);
    blocks_.push_back(block);
  }

  // Until there is no more; why.
  Error fill() {
    return refusal_of([this] {
      for (;;) add_block();
    });
  }

  bool reads_back() const {
    for (std::size_t i = 0; i < blocks_.size(); ++i)
      if (blocks_[i][0] != mark(i) || std::memcmp(blocks_[i], blocks_[i] + 1, kBlock - 1) != 0)
        return false;
    return true;
  }

  // What the shortage must not have broken: "fine", or what it has.
  std::string goes_on(FreezeMode mode = FreezeMode::strict) {
    for (int i = 0; i < 16; ++i) {
      arena_.deallocate(blocks_.back(), kBlock, 4096);
      blocks_.pop_back();
    }
    add_block();
    if (!reads_back()) return "other bytes";
    if (auto frozen = arena_.freeze(mode); !frozen) return frozen.error().message;
    return reads_back() ? "fine" : "other bytes when frozen";
  }

  // Writes to frozen pages: private copies.
  void write_privately(std::size_t bytes) {
    for (std::size_t i = 0; i * kBlock < bytes; ++i) std::memset(blocks_[i], mark(i), kBlock);
  }

 private:
  static unsigned char mark(std::size_t number) {
    return static_cast<unsigned char>(number * 7 + 1);
  }

  Arena arena_;
  std::vector<unsigned char*> blocks_;
};

inline std::string described(const Error& error) {
  return std::string(to_string(error.code)) + " " + std::to_string(error.system_errno);
}

}  // namespace cowshed::test
