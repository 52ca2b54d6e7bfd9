// A program with two published objects in a lenient arena, and a worker that writes to both.
//
//   object_subject LINGER_MS [IMAGE]
//
// Publishes "first" and "second", of 16 pages each, and freezes their arena, named "subject".  Then
// it writes to the first 2 pages of "first" itself, and starts a worker, which inherits these,
// writes to the first of them and to the first 3 pages of "second", prints a line and stays for
// LINGER_MS.  The line: the addresses of both objects and the PID of the first process.  With
// IMAGE, the arena is saved there, and another program opens it and does what follows the freeze.
// Exits with 1 when anything did not go well.

#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <unistd.h>

#include <cowshed/share/arena.h>
#include <cowshed/share/image.h>
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

constexpr auto kLenient = cowshed::FreezeMode::lenient;

cowshed::Expected<cowshed::Arena> make_frozen() {
  auto arena = cowshed::Arena::create({.name = "subject", .capacity = 1ULL << 26U});
  if (!arena) return arena;
  for (const char* name : {"first", "second"}) {
    const auto published = arena->make<Block>().and_then(
        [&](const Block* block) { return cowshed::publish(name, block); });
    if (!published) return tl::make_unexpected(published.error());
  }
  const auto frozen = arena->freeze(kLenient);
  if (!frozen) return tl::make_unexpected(frozen.error());
  return arena;
}

int write_and_wait(long linger_ms) {
  const auto first = cowshed::find<Block>("first");
  const auto second = cowshed::find<Block>("second");
  if (!first || !second) return EXIT_FAILURE;
  write_to(**first, 2);
  auto workers = cowshed::start({.count = 1}, work, *first, *second, ::getpid(), linger_ms);
  if (!workers) return EXIT_FAILURE;
  const auto exits = workers->wait();
  return exits && exits->front().ok() ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 3) return EXIT_FAILURE;
  const long linger_ms = std::strtol(argv[1], nullptr, 10);
  const bool opens = argc == 3 && std::getenv("OPEN_IMAGE") != nullptr;
  const auto arena =
      opens ? cowshed::open_image(argv[2], {.mode = kLenient, .publish = true}) : make_frozen();
  if (!arena) return EXIT_FAILURE;
  if (argc == 2 || opens) return write_and_wait(linger_ms);
  ::setenv("OPEN_IMAGE", "1", 1);
  if (cowshed::save_image(*arena, argv[2])) ::execv("/proc/self/exe", argv);
  return EXIT_FAILURE;
}
