// A program with a frozen arena and two workers.
//
//   arena_subject strict|lenient PAGES WRITES LINGER_MS
//
// Fills an arena named "subject" with PAGES pages, freezes it, and starts two workers, each of
// which reads all of it, writes to WRITES of its pages and stays for LINGER_MS.  Exits with 1 and a
// line on standard error when a worker did not end well.

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include <cowshed/share/arena.h>
#include <cowshed/share/workers.h>

namespace {

constexpr std::size_t kPageSize = 4096;

struct Page {
  std::array<char, kPageSize> bytes;
};

void work(const Page* pages, long count, long writes, long linger_ms) {
  volatile char sum = 0;
  for (long i = 0; i < count; ++i) sum = static_cast<char>(sum + pages[i].bytes[0]);
  for (long i = 0; i < writes; ++i) const_cast<Page&>(pages[i]).bytes[0] = 2;
  std::this_thread::sleep_for(std::chrono::milliseconds(linger_ms));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return EXIT_FAILURE;
  const auto mode = std::strcmp(argv[1], "lenient") == 0 ? cowshed::FreezeMode::lenient
                                                         : cowshed::FreezeMode::strict;
  const long count = std::strtol(argv[2], nullptr, 10);
  const long writes = std::strtol(argv[3], nullptr, 10);
  const long linger_ms = std::strtol(argv[4], nullptr, 10);

  auto arena = cowshed::Arena::create({.name = "subject", .capacity = 1ULL << 30U});
  if (!arena) return EXIT_FAILURE;
  const auto bytes = static_cast<std::size_t>(count) * sizeof(Page);
  auto* pages = static_cast<Page*>(arena->resource()->allocate(bytes, kPageSize));
  std::memset(pages, 1, bytes);
  if (!arena->freeze(mode)) return EXIT_FAILURE;

  auto workers = cowshed::start({.count = 2}, work, pages, count, writes, linger_ms);
  if (!workers) return EXIT_FAILURE;
  int status = EXIT_SUCCESS;
  const auto exits = workers->wait();
  if (!exits) return EXIT_FAILURE;
  for (const auto& exit : *exits) {
    if (exit.ok()) continue;
    std::fprintf(stderr, "%s\n", exit.error.c_str());
    status = EXIT_FAILURE;
  }
  return status;
}
