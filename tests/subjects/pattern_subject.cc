// A program whose child copies pages in ways that have a name: pattern_subject KIND PAGES BYTES.

#include <memory>
#include <thread>
#include <vector>

#include "known_copies.h"

namespace pattern_subject {

// One in each page.
struct Item {
  char bytes[kPage - 64] = {};
};
using Pointer = std::shared_ptr<Item>;

// The lines that the tests look for, each with its number.
// clang-format off
constexpr int kBlock = __LINE__; [[gnu::noinline]] void copy_block(char* to, const char* from, std::size_t bytes) { std::memcpy(to, from, bytes); asm volatile(""); }
constexpr int kFill = __LINE__; [[gnu::noinline]] void fill_block(char* to, std::size_t bytes) { std::memset(to, 1, bytes); asm volatile(""); }
constexpr int kShare = __LINE__; [[gnu::noinline]] void share(Pointer& to, const Pointer& from) { new (&to) Pointer(from); }
constexpr int kDrop = __LINE__; [[gnu::noinline]] void drop(Pointer& pointer) { std::destroy_at(&pointer); }
constexpr int kLock = __LINE__; [[gnu::noinline]] void lock(Pointer& to, const std::weak_ptr<Item>& from) { new (&to) Pointer(from.lock()); }
// clang-format on

char* map(std::size_t size) {
  void* mapped = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (mapped == MAP_FAILED) std::abort();
  return static_cast<char*>(mapped);
}

// One block behind another.
template <class Write>
void write_blocks(std::size_t pages, Write write) {
  char* memory = map(pages * kPage);
  in_child([=] {
    for (std::size_t at = 0; at + bytes <= pages * kPage; at += bytes) write(memory + at);
  });
}

void blocks(std::size_t pages) {
  const char* source = map(bytes);
  write_blocks(pages, [=](char* to) { copy_block(to, source, bytes); });
}

void fills(std::size_t pages) {
  write_blocks(pages, [](char* to) { fill_block(to, bytes); });
}

std::vector<Pointer> make_items(std::size_t count) {
  std::vector<Pointer> items(count);
  for (Pointer& item : items) item = std::make_shared<Item>();
  return items;
}

Pointer* room_for(std::size_t count) {
  return reinterpret_cast<Pointer*>(map(count * sizeof(Pointer)));
}

void share_all(const std::vector<Pointer>& items, Pointer* room) {
  for (std::size_t i = 0; i < items.size(); ++i) share(room[i], items[i]);
}

// Where there is a thread, libstdc++ counts by locked instructions.
template <class Work>
void run(bool in_thread, Work work) {
  if (in_thread) std::thread(work).join();
  else work();
}

template <bool kInThread>
void shared(std::size_t pages) {
  const std::vector<Pointer> items = make_items(pages);
  in_child([&] { run(kInThread, [&] { share_all(items, room_for(pages)); }); });
}

void drop_all(Pointer* pointers, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) drop(pointers[i]);
}

template <bool kInThread>
void dropped(std::size_t pages) {
  const std::vector<Pointer> items = make_items(pages);
  Pointer* others = room_for(pages);
  share_all(items, others);
  in_child([=] { run(kInThread, [=] { drop_all(others, pages); }); });
}

void locked(std::size_t pages) {
  const std::vector<Pointer> items = make_items(pages);
  const std::vector<std::weak_ptr<Item>> observers(items.begin(), items.end());
  in_child([&] {
    Pointer* room = room_for(pages);
    for (std::size_t i = 0; i < pages; ++i) lock(room[i], observers[i]);
  });
}

void lines(std::size_t /*pages*/) {
  std::printf("copy_block %d fill_block %d share %d drop %d lock %d\n", kBlock, kFill, kShare,
              kDrop, kLock);
}

constexpr Kind kKinds[] = {
    {"lines", lines},
    {"blocks", blocks},
    {"fills", fills},
    {"shared", shared<false>},
    {"shared_by_threads", shared<true>},
    {"dropped", dropped<false>},
    {"dropped_by_threads", dropped<true>},
    {"locked", locked},
};

}  // namespace pattern_subject

int main(int argc, char** argv) { return run_kind(pattern_subject::kKinds, argc, argv); }
