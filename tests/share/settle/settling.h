#pragma once

#include <malloc.h>

#include <cowshed/base/size_literals.h>
#include <cowshed/share/settle.h>
#include <cowshed/tests/share/share.h>

namespace cowshed::test {

// Blocks of malloc whose bytes tell which block they are of.
class Blocks {
 public:
  // Freed large blocks would raise the size from which blocks have mappings of their own.
  Blocks() { mallopt(M_MMAP_THRESHOLD, 128 << 10); }
  explicit Blocks(std::size_t size, std::size_t count = 1) : Blocks() {
    while (this->count() < count) add(size);
  }
  Blocks(Blocks&&) = default;
  Blocks& operator=(Blocks&&) = delete;
  ~Blocks() {
    for (const Block& block : blocks_) std::free(block.memory);
  }

  std::size_t count() const { return blocks_.size(); }
  unsigned char* operator[](std::size_t index) const { return blocks_[index].memory; }

  void add(std::size_t size) {
    blocks_.push_back({static_cast<unsigned char*>(std::malloc(size)), size, next_++});
    fill(blocks_.back(), 0);
  }
  void add_zeroed(std::size_t size) {
    auto* memory = static_cast<unsigned char*>(std::calloc(1, size));
    if (std::any_of(memory, memory + size, [](unsigned char byte) { return byte != 0; }))
      throw std::logic_error("calloc: not zero");
    blocks_.push_back({memory, size, next_++});
    fill(blocks_.back(), 0);
  }
  void resize(std::size_t index, std::size_t size) {
    Block& block = blocks_[index];
    block.memory = static_cast<unsigned char*>(std::realloc(block.memory, size));
    const std::size_t before = std::exchange(block.size, size);
    if (size > before) fill(block, before);
  }
  void remove(std::size_t index) {
    std::free(blocks_[index].memory);
    blocks_[index] = blocks_.back();
    blocks_.pop_back();
  }
  void rewrite(std::size_t index) {
    blocks_[index].number = next_++;
    fill(blocks_[index], 0);
  }

  // Writes to each page, and undoes it, as a reference count does.
  void touch(std::size_t index) {
    for (std::size_t at = 0; at < blocks_[index].size; at += 4_KiB)
      for (int i = 0; i < 2; ++i) {
        volatile unsigned char& byte = blocks_[index].memory[at];
        byte = byte ^ 1U;
      }
  }

  // How many bytes are wrong.
  std::size_t damage() const {
    std::size_t wrong = 0;
    for (const Block& block : blocks_)
      for (std::size_t i = 0; i < block.size; ++i)
        wrong += block.memory[i] != byte_of(block.number, i) ? 1 : 0;
    return wrong;
  }

 private:
  struct Block {
    unsigned char* memory;
    std::size_t size;
    std::size_t number;
  };

  static unsigned char byte_of(std::size_t number, std::size_t at) {
    return static_cast<unsigned char>(number * 31 + at * 7 + (at >> 12U) + 1);
  }
  static void fill(const Block& block, std::size_t from) {
    for (std::size_t i = from; i < block.size; ++i) block.memory[i] = byte_of(block.number, i);
  }

  std::vector<Block> blocks_;
  std::size_t next_ = 1;
};

inline bool holds(const std::vector<MovedMemory>& moved, const void* address) {
  return std::ranges::any_of(moved, [address](const MovedMemory& part) {
    return part.memory.data() <= address && address < part.memory.data() + part.memory.size();
  });
}

// Why settle() or reshare() has left what is there; "" where it has not.
std::string reason_at(const auto& done, const void* address) {
  for (const LeftMemory& part : done.left)
    if (part.memory.data() <= address && address < part.memory.data() + part.memory.size())
      return part.reason;
  return "";
}

inline bool is_settled(const void* address) {
  return mapping_name(address).starts_with("/memfd:cowshed-settled");
}

// An anonymous mapping, unmapped with this object.
class Pages {
 public:
  explicit Pages(std::size_t size, int flags = 0)
      : memory_(static_cast<unsigned char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE,
                                                 MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0))),
        size_(size) {
    if (memory_ != MAP_FAILED) std::memset(memory_, 7, size);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages() { munmap(memory_, size_); }

  bool exists() const { return memory_ != MAP_FAILED; }
  unsigned char* data() const { return memory_; }
  std::span<const std::byte> span() const { return std::as_bytes(std::span(memory_, size_)); }
  bool is_all(unsigned char byte) const {
    return std::all_of(memory_, memory_ + size_, [byte](unsigned char b) { return b == byte; });
  }

 private:
  unsigned char* memory_;
  std::size_t size_;
};

// SIGALRM comes so often; 0: no more.
inline void ring_every(long microseconds) {
  const itimerval timer = {{0, microseconds}, {0, microseconds}};
  setitimer(ITIMER_REAL, &timer, nullptr);
}

// A signal handler flips a bit of a byte, often.  Half of the time the byte is as it was.
class Flips {
 public:
  explicit Flips(unsigned char* byte) {
    the_byte = byte;
    expected = *byte;
    is_lost = false;
    struct sigaction action = {};
    action.sa_handler = flip;
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, nullptr);
    ring_every(300);
  }
  Flips(const Flips&) = delete;
  Flips& operator=(const Flips&) = delete;
  ~Flips() { ring_every(0); }

  static bool are_lost() { return is_lost; }

 private:
  static void flip(int /*signal*/) {
    if (*the_byte != expected) is_lost = true;
    *the_byte = expected ^= 1U;
  }

  static inline volatile unsigned char* the_byte;
  static inline unsigned char expected;
  static inline std::atomic<bool> is_lost;
};

// Why settle() leaves these pages; their bytes stay.
inline std::string reason_to_leave(const Pages& pages) {
  const Settled settled = value_of(settle({.also = {pages.span()}, .heap = false}));
  EXPECT_TRUE(settled.moved.empty());
  EXPECT_TRUE(pages.is_all(7));
  return reason_at(settled, pages.data());
}

}  // namespace cowshed::test
