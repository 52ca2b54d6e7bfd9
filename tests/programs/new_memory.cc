// Gets new memory in forked children, in the ways and amounts of its arguments:
// new_memory CHILDREN own=MIB loaded=MIB received=MIB piped=MIB coroutine=MIB stack=MIB...
// Or all children at once copy and make 700, 300, 600 and 400 pages, three times: bursts CHILDREN
#include <alloca.h>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

namespace {

constexpr std::size_t kMiB = 1 << 20;

[[gnu::noinline]] void own(std::size_t bytes) {
  auto* memory = static_cast<volatile char*>(std::malloc(bytes));
  for (std::size_t i = 0; i < bytes; i += 64) memory[i] = 1;
}

[[gnu::noinline]] void loaded(std::size_t bytes) {
  std::FILE* file = std::tmpfile();
  if (file == nullptr || ::ftruncate(::fileno(file), static_cast<off_t>(bytes)) != 0) std::abort();
  auto* memory = static_cast<char*>(std::malloc(bytes));
  for (std::size_t at = 0; at < bytes;) {
    const ssize_t got = ::pread(::fileno(file), memory + at, bytes - at, static_cast<off_t>(at));
    if (got <= 0) std::abort();
    at += static_cast<std::size_t>(got);
  }
}

[[gnu::noinline]] void received(std::size_t bytes) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) std::abort();
  auto* memory = static_cast<char*>(std::malloc(bytes));
  const std::vector<char> part(1 << 15, 'x');
  for (std::size_t at = 0; at < bytes;) {
    if (::send(ends[0], part.data(), part.size(), 0) <= 0) std::abort();
    const ssize_t got = ::recv(ends[1], memory + at, part.size(), MSG_WAITALL);
    if (got <= 0) std::abort();
    at += static_cast<std::size_t>(got);
  }
}

[[gnu::noinline]] void piped(std::size_t bytes) {
  int ends[2];
  if (::pipe(ends) != 0) std::abort();
  auto* memory = static_cast<char*>(std::malloc(bytes));
  const std::vector<char> part(1 << 15, 'x');
  for (std::size_t at = 0; at < bytes; at += part.size()) {
    const auto size = static_cast<ssize_t>(part.size());
    if (::write(ends[1], part.data(), part.size()) != size) std::abort();
    if (::read(ends[0], memory + at, part.size()) != size) std::abort();
  }
}

[[gnu::noinline]] void stack(std::size_t bytes) {
  auto* memory = static_cast<volatile char*>(alloca(bytes));
  for (std::size_t i = 0; i < bytes; i += 64) memory[i] = 1;
}

std::span<volatile char> heap;

[[gnu::noinline]] void coroutine() {
  for (std::size_t i = 0; i < heap.size(); i += 64) heap[i] = 1;
}

// It has a stack in the memory that it fills, as the heap of Go has them.
void run_coroutine(std::size_t bytes) {
  constexpr std::size_t kStack = 64 << 10;
  auto* memory = static_cast<char*>(
      ::mmap(nullptr, kStack + bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  heap = {memory + kStack, bytes};
  ucontext_t back;
  ucontext_t other;
  ::getcontext(&other);
  other.uc_stack.ss_sp = memory;
  other.uc_stack.ss_size = kStack;
  other.uc_link = &back;
  ::makecontext(&other, coroutine, 0);
  ::swapcontext(&back, &other);
}

constexpr std::size_t kPage = 4096;

[[gnu::noinline]] void copy_much(volatile char*& memory) {
  for (int i = 0; i < 700; ++i, memory += kPage) *memory = 1;
}
[[gnu::noinline]] void copy_little(volatile char*& memory) {
  for (int i = 0; i < 300; ++i, memory += kPage) *memory = 1;
}
[[gnu::noinline]] void make_much(volatile char*& memory) {
  for (int i = 0; i < 600; ++i, memory += kPage) *memory = 1;
}
[[gnu::noinline]] void make_little(volatile char*& memory) {
  for (int i = 0; i < 400; ++i, memory += kPage) *memory = 1;
}

volatile char* map(std::size_t bytes, int flags) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
  ::madvise(memory, bytes, MADV_NOHUGEPAGE);
  return static_cast<volatile char*>(memory);
}

void run_bursts(int children) {
  constexpr int kBursts = 3;
  constexpr std::size_t kPages = std::size_t{kBursts} * 1000;
  volatile char* begun = map(kPage, MAP_SHARED);
  volatile char* copied = map(kPages * kPage, MAP_PRIVATE);
  for (std::size_t i = 0; i < kPages; ++i) copied[i * kPage] = 1;
  for (int child = 0; child < children; ++child) {
    if (::fork() != 0) continue;
    volatile char* made = map(kPages * kPage, MAP_PRIVATE);
    for (int burst = 0; burst < kBursts; ++burst) {
      while (*begun <= burst) ::usleep(1000);
      copy_much(copied);
      copy_little(copied);
      make_much(made);
      make_little(made);
    }
    ::usleep(300'000);
    ::_exit(0);
  }
  for (int burst = 0; burst < kBursts; ++burst) {
    ::usleep(400'000);
    *begun = static_cast<char>(burst + 1);
  }
}

void get(std::string_view way, std::size_t bytes) {
  if (way == "own") own(bytes);
  else if (way == "loaded") loaded(bytes);
  else if (way == "received") received(bytes);
  else if (way == "piped") piped(bytes);
  else if (way == "coroutine") run_coroutine(bytes);
  else if (way == "stack") std::thread(stack, bytes).join();
  else std::abort();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "bursts") run_bursts(std::atoi(argv[2]));
  const int children = std::atoi(argv[1]);
  for (int child = 0; child < children; ++child) {
    if (::fork() != 0) continue;
    for (int i = 2; i < argc; ++i) {
      const std::string_view word = argv[i];
      const auto at = word.find('=');
      get(word.substr(0, at), std::stoul(std::string(word.substr(at + 1))) * kMiB);
    }
    ::usleep(300'000);
    ::_exit(0);
  }
  while (::wait(nullptr) > 0) {
  }
}
