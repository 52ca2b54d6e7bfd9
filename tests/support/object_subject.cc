// A program with two published objects in a lenient arena, and a worker that writes to both.
//
//   object_subject LINGER_MS
//
// Publishes "first" and "second", of 16 pages each, and freezes their arena, named "subject".  Then
// it writes to the first 2 pages of "first" itself, and starts a worker, which inherits these,
// writes to the first of them and to the first 3 pages of "second", prints a line and stays for
// LINGER_MS.  The line: the addresses of both objects and the PID of the first process.  Exits with
// 1 when anything did not go well.

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <unistd.h>

#include <cowshed/share/arena.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>

namespace {

struct alignas(4096) Page {
  std::array<char, 4096> bytes;
};
struct Block {
  std::array<Page, 16> pages;
};

void write_to(const Block& block, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) const_cast<Page&>(block.pages.at(i)).bytes[0] += 1;
}

void work(const Block& first, const Block& second, pid_t publisher, long linger_ms) {
  write_to(first, 1);
  write_to(second, 3);
  std::printf("%p %p %d\n", static_cast<const void*>(&first), static_cast<const void*>(&second),
              publisher);
  std::fflush(stdout);
  std::this_thread::sleep_for(std::chrono::milliseconds(linger_ms));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return EXIT_FAILURE;
  const long linger_ms = std::strtol(argv[1], nullptr, 10);
  auto arena = cowshed::Arena::create({.name = "subject", .capacity = 1ULL << 26U});
  if (!arena) return EXIT_FAILURE;
  const auto first = arena->make<Block>().and_then(
      [](const Block* block) { return cowshed::publish("first", block); });
  const auto second = arena->make<Block>().and_then(
      [](const Block* block) { return cowshed::publish("second", block); });
  if (!first || !second || !arena->freeze(cowshed::FreezeMode::lenient)) return EXIT_FAILURE;
  write_to(**first, 2);
  auto workers = cowshed::start({.count = 1}, work, *first, *second, ::getpid(), linger_ms);
  if (!workers) return EXIT_FAILURE;
  const auto exits = workers->wait();
  return exits && exits->front().ok() ? EXIT_SUCCESS : EXIT_FAILURE;
}
