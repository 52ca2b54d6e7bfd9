// Gets new memory in forked children, in the ways and amounts of its arguments:
// new_memory CHILDREN own=MIB loaded=MIB received=MIB piped=MIB coroutine=MIB stack=MIB...
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
