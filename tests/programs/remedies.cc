// remedies CAUSE [follow]: a parent and children that copy by CAUSE, or that follow its remedy.
// Without arguments it prints the causes.
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <malloc.h>
#include <memory>
#include <pthread.h>
#include <spawn.h>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/immortal_ptr.h>

namespace {

constexpr std::array kCauses = {"a parent's writes", "allocator free list",
                                "garbage collector", "lock or flag word",
                                "own writes",        "programs",
                                "program exit",      "reference count",
                                "relocation",        "stack",
                                "malloc_trim(0)"};
constexpr int kBlocks = 40000;
constexpr int kBlockSize = 500;
constexpr int kSize = 32 << 20;
constexpr int kPage = 4096;

std::string_view cause;
bool follows = false;
char* memory;
void* blocks[kBlocks];

bool is(std::string_view name) { return cause == name; }

struct Head {
  pthread_mutex_t lock = {};
  long hits = 0;
  bool is_marked = false;
};
struct Record : Head {
  char data[400] = {1};
};
std::vector<Record> records;
std::vector<Head> heads;  // apart from the records
std::vector<std::shared_ptr<Record>> counted;
std::vector<cowshed::ImmortalPtr<Record>> immortal;

void allocate_blocks() {
  for (void*& each : blocks) std::memset(each = std::malloc(kBlockSize), 1, kBlockSize);
}

void load() {
  memory = static_cast<char*>(std::aligned_alloc(kPage, kSize));
  std::memset(memory, 1, kSize);
  allocate_blocks();
  records.resize(kBlocks);
  heads.resize(kBlocks);
  if (!is("reference count")) return;
  for (int i = 0; i < kBlocks && !follows; ++i) counted.push_back(std::make_shared<Record>());
  if (!follows) return;
  static auto arena = cowshed::Arena::create({.name = "records", .capacity = kSize}).value();
  for (Record& each : arena.make_array<Record>(kBlocks).value()) immortal.emplace_back(&each);
  if (!arena.freeze()) std::abort();
}

Head& head(int i) { return follows ? heads[i] : records[i]; }

[[gnu::noinline]] void count(int i) { ++head(i).hits; }

// Marks no object again.
[[gnu::noinline]] void mark_and_sweep() {
  for (Record& each : records)
    if (!each.is_marked) each.is_marked = true;
}

void use(const char* page) { asm volatile("" : : "r"(page) : "memory"); }

void deep(int depth) {
  char page[kPage];
  use(page);
  if (depth > 0) deep(depth - 1);
  use(page);
}

void open_library() {
  if (dlopen(std::getenv("LIBRARY"), RTLD_NOW) == nullptr) std::abort();
}

void free_blocks() {
  for (void* each : blocks) std::free(each);
}

void read_all(const auto& pointers) {
  for (auto each : pointers) use(each->data);  // a copy of each
}

void work() {
  if (is("allocator free list") && !follows) free_blocks();
  if (is("malloc_trim(0)")) {
    allocate_blocks();
    usleep(1'000'000);  // with all the others
  }
  if (is("garbage collector")) mark_and_sweep();
  if (is("own writes"))
    for (int i = 0; i < kBlocks; ++i) count(i);
  for (int i = 0; is("lock or flag word") && i < kBlocks; ++i) {
    pthread_mutex_lock(&head(i).lock);
    pthread_mutex_unlock(&head(i).lock);
  }
  if (is("program exit") && !follows) std::exit(0);
  if (is("reference count")) follows ? read_all(immortal) : read_all(counted);
  if (is("relocation")) open_library();
  if (is("stack")) {
    deep(20);
    usleep(1'000'000);  // with all the others
  }
  _exit(0);
}

// Programs that are started, one after the other.
void run_programs() {
  std::string name = "true";
  char* const arguments[] = {name.data(), nullptr};
  for (int k = 0; k < 300; ++k) {
    pid_t pid = 0;
    if (follows) {
      posix_spawn(&pid, "/bin/true", nullptr, nullptr, arguments, environ);
    } else if ((pid = fork()) == 0) {
      for (int i = 0; i < 50; ++i) ++memory[(k + i) * kPage];
      execv("/bin/true", arguments);
    }
    waitpid(pid, nullptr, 0);
  }
}

// A database that saves itself while it is written to.
void save() {
  const pid_t child = fork();
  if (child == 0) {
    usleep(300'000);
    _exit(0);
  }
  if (follows) waitpid(child, nullptr, 0);
  std::memset(memory, 3, kSize);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 1)
    for (const char* each : kCauses) std::puts(each);
  if (argc == 1) return 0;
  cause = argv[1];
  follows = argc > 2;
  if (!is("stack")) load();
  if (is("program exit")) std::atexit(free_blocks);  // as static objects are destroyed
  if (is("garbage collector") && follows) mark_and_sweep();
  if (is("relocation") && follows) open_library();
  if (is("malloc_trim(0)")) {
    for (int i = 0; i + 1 < kBlocks; ++i) std::free(blocks[i]);  // the last keeps malloc's heap
    if (follows) malloc_trim(0);
  }
  deep(24);
  if (is("programs")) run_programs();
  else if (is("a parent's writes")) save();
  else
    for (int i = is("stack") && !follows ? 400 : 4; i > 0; --i)
      if (fork() == 0) work();
  int status = 0;
  while (wait(&status) > 0)
    if (status != 0) std::abort();
  _exit(0);
}
