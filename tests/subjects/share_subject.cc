// Programs that use share/.  Each exits with 1 when anything did not go well.
//
//   share_subject arena strict|lenient PAGES WRITES LINGER_MS
//
// Fills an arena named "subject" with PAGES pages, freezes it, and starts two workers, each of
// which reads all of it, writes to WRITES of its pages and stays for LINGER_MS.
//
//   share_subject heap plain|settled PAGES WRITES LINGER_MS
//
// Fills PAGES pages of the heap, settles it or not, writes to the first 2000 pages again, and
// starts two workers, each of which reads all of it, writes to WRITES pages from the 1001st on and
// stays for LINGER_MS.
//
//   share_subject objects LINGER_MS [IMAGE]
//
// Publishes "first" and "second", of 16 pages each, and freezes their arena, named "subject".  Then
// it writes to the first 2 pages of "first" itself, and starts a worker, which inherits these,
// writes to the first of them and to the first 3 pages of "second", prints a line and stays for
// LINGER_MS.  The line: the addresses of both objects and the PID of the first process.  With
// IMAGE, the arena is saved there, and another program opens it and does what follows the freeze.
//
//   share_subject transfers LINGER_MS [MIB]
//
// Sends 5 ints through the channel "numbers"; a worker that it forks then sends 2 through the same,
// and stays for LINGER_MS.  With MIB, it first holds so much memory for a second.

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/arena_image.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/settle.h>
#include <cowshed/share/workers.h>

namespace {

void linger(long ms) { std::this_thread::sleep_for(std::chrono::milliseconds(ms)); }

// Of started workers.
template <class Workers>
int result_of(cowshed::Expected<Workers> workers) {
  int status = EXIT_SUCCESS;
  const auto exits = workers.value().wait().value();
  for (const auto& exit : exits) {
    if (exit.ok()) continue;
    std::fprintf(stderr, "%s\n", exit.error.c_str());
    status = EXIT_FAILURE;
  }
  return status;
}

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
  linger(linger_ms);
}

constexpr auto kLenient = cowshed::FreezeMode::lenient;

cowshed::Arena make_frozen() {
  auto arena = cowshed::Arena::create({.name = "subject", .capacity = 1ULL << 26U}).value();
  for (const char* name : {"first", "second"}) {
    const Block* block = arena.make<Block>().value();
    static_cast<void>(cowshed::publish(name, block).value());
  }
  if (!arena.freeze(kLenient)) throw std::runtime_error("not frozen");
  return arena;
}

int write_and_wait(long linger_ms) {
  const auto first = cowshed::find<Block>("first").value();
  const auto second = cowshed::find<Block>("second").value();
  write_to(*first, 2);
  return result_of(cowshed::start({.count = 1}, work, first, second, ::getpid(), linger_ms));
}

int objects(long linger_ms, const char* image, char** arguments) {
  const bool opens = image != nullptr && std::getenv("OPEN_IMAGE") != nullptr;
  const auto arena = opens ? cowshed::open_image(image, {.mode = kLenient, .publish = true}).value()
                           : make_frozen();
  if (image == nullptr || opens) return write_and_wait(linger_ms);
  ::setenv("OPEN_IMAGE", "1", 1);
  if (cowshed::save_image(arena, image)) ::execv("/proc/self/exe", arguments);
  return EXIT_FAILURE;
}

void read_and_write(const Page* pages, long count, long writes, long linger_ms) {
  volatile char sum = 0;
  for (long i = 0; i < count; ++i) sum = static_cast<char>(sum + pages[i].bytes[0]);
  for (long i = 0; i < writes; ++i) const_cast<Page&>(pages[i]).bytes[0] = 2;
  linger(linger_ms);
}

int arena(const std::string& mode, long count, long writes, long linger_ms) {
  auto arena = cowshed::Arena::create({.name = "subject", .capacity = 1ULL << 30U}).value();
  const auto bytes = static_cast<std::size_t>(count) * sizeof(Page);
  auto* pages = static_cast<Page*>(arena.resource()->allocate(bytes, alignof(Page)));
  std::memset(static_cast<void*>(pages), 1, bytes);
  if (!arena.freeze(mode == "lenient" ? kLenient : cowshed::FreezeMode::strict))
    return EXIT_FAILURE;
  return result_of(cowshed::start({.count = 2}, read_and_write, pages, count, writes, linger_ms));
}

int heap(bool is_settled, long count, long writes, long linger_ms) {
  constexpr long kWrittenAgain = 2000;
  std::vector<Page> pages(static_cast<std::size_t>(count));
  std::memset(static_cast<void*>(pages.data()), 1, pages.size() * sizeof(Page));
  if (is_settled)
    if (const auto moved = cowshed::settle(); !moved)
      throw std::runtime_error(moved.error().message);
  for (long i = 0; i < kWrittenAgain; ++i) pages[static_cast<std::size_t>(i)].bytes[0] = 2;
  const Page* first = pages.data() + kWrittenAgain / 2;
  return result_of(cowshed::start({.count = 2}, read_and_write, first, count - kWrittenAgain / 2,
                                  writes, linger_ms));
}

int transfers(long linger_ms, long held_mib) {
  constexpr long kHeldMs = 1000;
  const std::vector<char> held(static_cast<std::size_t>(held_mib) << 20U, 'x');
  if (!held.empty()) linger(kHeldMs);
  auto numbers = cowshed::Channel<int>::create({.name = "numbers"}).value();
  const auto send = [&](int count) {
    for (int i = 0; i < count; ++i)
      if (!numbers.send(i)) throw std::runtime_error("not sent");
  };
  send(5);
  return result_of(cowshed::start({}, [&] {
    send(2);
    linger(linger_ms);
  }));
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string kind = argc > 1 ? argv[1] : "";
  const auto number = [&](int i) { return std::strtol(argv[i], nullptr, 10); };
  if (kind == "arena" && argc == 6) return arena(argv[2], number(3), number(4), number(5));
  if (kind == "heap" && argc == 6)
    return heap(argv[2] == std::string("settled"), number(3), number(4), number(5));
  if (kind == "objects" && argc >= 3) return objects(number(2), argc > 3 ? argv[3] : nullptr, argv);
  if (kind == "transfers" && argc >= 3) return transfers(number(2), argc > 3 ? number(3) : 0);
  return EXIT_FAILURE;
} catch (const std::exception& failure) {
  std::fprintf(stderr, "%s\n", failure.what());
  return EXIT_FAILURE;
}
