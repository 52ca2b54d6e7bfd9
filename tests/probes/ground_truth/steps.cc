#include "steps.h"

#include <charconv>

namespace ground_truth {

long count = 0;
char* program = nullptr;

[[noreturn]] void fail(const char* what) {
  const ssize_t ignored = write(2, what, std::strlen(what));
  _exit(ignored > 0 ? 70 : 71);
}

void print(const char* word, long number) {
  char line[64];
  char* end = stpcpy(line, word);
  *end++ = ' ';
  end = std::to_chars(end, line + sizeof line - 1, number).ptr;
  *end++ = '\n';
  if (write(1, line, static_cast<std::size_t>(end - line)) < 0) fail("write");
}

[[noreturn]] void execute(const char* kind, const char* number) {
  char* const arguments[] = {program, const_cast<char*>(kind), const_cast<char*>(number), nullptr};
  execve(program, arguments, environ);
  fail("execve");
}

[[gnu::noinline]] void own_the_stack() {
  volatile char pages[16 * kPage];
  for (std::size_t i = 0; i < sizeof pages; i += kPage) pages[i] = 1;
}

namespace {

char* map(std::size_t size, int protection, int flags, int fd) {
  void* at = mmap(nullptr, size, protection, flags, fd, 0);
  if (at == MAP_FAILED) fail("mmap");
  madvise(at, size, MADV_NOHUGEPAGE);
  return static_cast<char*>(at);
}

}  // namespace

char* map(int protection, int flags, int fd) { return map(bytes(), protection, flags, fd); }

char* small_pages(std::size_t size) {
  return map(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

char* private_pages() { return map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS); }

char* written_private_pages() {
  char* pages = private_pages();
  write_all(pages);
  return pages;
}

void write_some(char* pages, long number) {
  for (long i = 0; i < number; ++i) store(page_of(pages, i));
}

void write_all(char* pages) { write_some(pages, count); }

void* write_all_of(void* pages) {
  write_all(static_cast<char*>(pages));
  return nullptr;
}

void read_all(const char* pages) {
  for (long i = 0; i < count; ++i)
    (void)*static_cast<const volatile char*>(pages + static_cast<std::size_t>(i) * kPage);
}

int disk_file() {
  char name[] = "/var/tmp/cowshed-subject-XXXXXX";
  const int fd = mkstemp(name);
  if (fd < 0 || unlink(name) != 0 || ftruncate(fd, static_cast<off_t>(bytes())) != 0) fail("file");
  return fd;
}

int memory_file(const char* name) {
  const int fd = memfd_create(name, 0);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes())) != 0) fail("memfd");
  return fd;
}

int filled_memory_file(const char* name) {
  const int fd = memory_file(name);
  char* pages = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
  write_all(pages);
  munmap(pages, bytes());
  return fd;
}

void finish_measured() {
  print("done", 0);
  char byte = 0;
  while (read(0, &byte, 1) > 0) {
  }
}

void await(pid_t child) {
  int status = 0;
  if (waitpid(child, &status, 0) != child || status != 0) fail("child");
}

pthread_t start_thread(void* (*run)(void*), void* argument) {
  pthread_t thread;
  if (pthread_create(&thread, nullptr, run, argument) != 0) fail("thread");
  return thread;
}

void run_on_cpu(int cpu) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  if (sched_setaffinity(0, sizeof one, &one) != 0) fail("sched_setaffinity");
}

Sharer::Sharer() : pid_(fork()) {
  if (pid_ == 0) pause();
}

Sharer::~Sharer() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

}  // namespace ground_truth
