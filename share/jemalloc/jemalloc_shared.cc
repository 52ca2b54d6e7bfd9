#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <pthread.h>
#include <sys/mman.h>

#include <cowshed/share/jemalloc/jemalloc.h>
#include <cowshed/share/os/fork_state.h>

// Wraps the private jemalloc in a shared object, so that dlopen() needs 8 bytes of static TLS for
// it, not 2.6 KiB.  jemalloc/jemalloc_tls.cc has changed jemalloc to find a thread's data in memory
// of ours.  Each call of jemalloc first ensures that the thread has such memory.

// Each copy of the library in a process has its own.
#pragma GCC visibility push(hidden)
extern "C" {
// The distance from the thread's pointer to its data; 0 if it has none.
[[gnu::tls_model("initial-exec")]] constinit thread_local std::ptrdiff_t cowshed_je_thread_block =
    0;
extern const std::size_t cowshed_je_thread_data_size;
extern const std::byte cowshed_je_je_tsd_tls[];  // its initial value

int cowshed_je_key_create(pthread_key_t*, void (*)(void*));
int cowshed_je_set_specific(pthread_key_t, const void*);
int cowshed_je_at_fork(void (*)(), void (*)(), void (*)());

void* cowshed_je_inner_malloc(std::size_t);
void* cowshed_je_inner_calloc(std::size_t, std::size_t);
void* cowshed_je_inner_realloc(void*, std::size_t);
void cowshed_je_inner_free(void*);
void* cowshed_je_inner_memalign(std::size_t, std::size_t);
void* cowshed_je_inner_aligned_alloc(std::size_t, std::size_t);
int cowshed_je_inner_posix_memalign(void**, std::size_t, std::size_t);
std::size_t cowshed_je_inner_malloc_usable_size(void*);
std::size_t cowshed_je_inner_nallocx(std::size_t, int);
void* cowshed_je_inner_mallocx(std::size_t, int);
void cowshed_je_inner_dallocx(void*, int);
void cowshed_je_inner_sdallocx(void*, std::size_t, int);
int cowshed_je_inner_mallctl(const char*, void*, std::size_t*, void*, std::size_t);
}
#pragma GCC visibility pop

namespace {

// The header of a thread's data.
struct alignas(64) Block {
  Block* next;  // in the list of free blocks
  bool again;   // jemalloc wants to be called once more when the thread ends
};

COWSHED_FORK_STATE std::mutex blocks_mutex;  // held over a fork
Block* unused_blocks = nullptr;

void (*end_thread)(void*) = nullptr;
std::array<void (*)(), 3> at_fork{};

std::byte* thread_pointer() { return static_cast<std::byte*>(__builtin_thread_pointer()); }

Block* this_block() {
  return reinterpret_cast<Block*>(thread_pointer() + cowshed_je_thread_block) - 1;
}

// Blocks are never unmapped; later threads use them again.
void map_blocks() {
  constexpr std::size_t kBytes = 64 << 10;
  void* const got =
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (got == MAP_FAILED) return;
  const std::size_t size = (sizeof(Block) + cowshed_je_thread_data_size + 63) & ~std::size_t{63};
  for (std::size_t at = 0; at + size <= kBytes; at += size) {
    auto* const block = reinterpret_cast<Block*>(static_cast<std::byte*>(got) + at);
    block->next = unused_blocks;
    unused_blocks = block;
  }
}

[[gnu::noinline]] bool take_block() {
  const std::lock_guard lock(blocks_mutex);
  if (unused_blocks == nullptr) map_blocks();
  Block* const block = unused_blocks;
  if (block == nullptr) return false;
  unused_blocks = block->next;
  auto* const data = reinterpret_cast<std::byte*>(block + 1);
  std::memcpy(data, cowshed_je_je_tsd_tls, cowshed_je_thread_data_size);
  cowshed_je_thread_block = data - thread_pointer();
  return true;
}

void leave_block() {
  Block* const block = this_block();
  const std::lock_guard lock(blocks_mutex);
  cowshed_je_thread_block = 0;
  block->next = unused_blocks;
  unused_blocks = block;
}

// Returns false if there is no memory for the thread's data.
bool enter() { return cowshed_je_thread_block != 0 || take_block(); }

void* no_memory() {
  errno = ENOMEM;
  return nullptr;
}

// As in a jemalloc without TLS: a thread that calls jemalloc after this keeps its block until the
// process ends, unless the C library calls the destructors once more.
void leave_thread(void* data) {
  this_block()->again = false;
  end_thread(data);
  if (!this_block()->again) leave_block();
}

void before_fork() {
  if (!enter()) std::abort();  // libc does so if it has no memory for a thread's data
  at_fork[0]();
  blocks_mutex.lock();
}
void after_fork_in_parent() {
  blocks_mutex.unlock();
  at_fork[1]();
}
void after_fork_in_child() {
  blocks_mutex.unlock();
  at_fork[2]();
}

}  // namespace

extern "C" {

// Called by jemalloc.
int cowshed_je_key_create(pthread_key_t* key, void (*destructor)(void*)) {
  end_thread = destructor;
  return pthread_key_create(key, &leave_thread);
}
int cowshed_je_set_specific(pthread_key_t key, const void* data) {
  this_block()->again = true;
  return pthread_setspecific(key, data);
}
int cowshed_je_at_fork(void (*before)(), void (*in_parent)(), void (*in_child)()) {
  at_fork = {before, in_parent, in_child};
  return pthread_atfork(&before_fork, &after_fork_in_parent, &after_fork_in_child);
}

void* cowshed_je_malloc(std::size_t size) noexcept {
  return enter() ? cowshed_je_inner_malloc(size) : no_memory();
}
void* cowshed_je_calloc(std::size_t count, std::size_t size) noexcept {
  return enter() ? cowshed_je_inner_calloc(count, size) : no_memory();
}
void* cowshed_je_realloc(void* block, std::size_t size) noexcept {
  return enter() ? cowshed_je_inner_realloc(block, size) : no_memory();
}
void* cowshed_je_memalign(std::size_t alignment, std::size_t size) noexcept {
  return enter() ? cowshed_je_inner_memalign(alignment, size) : no_memory();
}
void* cowshed_je_aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  return enter() ? cowshed_je_inner_aligned_alloc(alignment, size) : no_memory();
}
int cowshed_je_posix_memalign(void** block, std::size_t alignment, std::size_t size) noexcept {
  return enter() ? cowshed_je_inner_posix_memalign(block, alignment, size) : ENOMEM;
}
void* cowshed_je_mallocx(std::size_t size, int flags) noexcept {
  return enter() ? cowshed_je_inner_mallocx(size, flags) : nullptr;
}
std::size_t cowshed_je_nallocx(std::size_t size, int flags) noexcept {
  return enter() ? cowshed_je_inner_nallocx(size, flags) : 0;
}
int cowshed_je_mallctl(const char* name, void* old_value, std::size_t* old_size, void* new_value,
                       std::size_t new_size) {
  return enter() ? cowshed_je_inner_mallctl(name, old_value, old_size, new_value, new_size)
                 : EAGAIN;
}
std::size_t cowshed_je_malloc_usable_size(void* block) noexcept {
  return enter() ? cowshed_je_inner_malloc_usable_size(block) : 0;
}

// Leaks the block if there is no memory for the thread's data.
void cowshed_je_free(void* block) noexcept {
  if (enter()) cowshed_je_inner_free(block);
}
void cowshed_je_dallocx(void* block, int flags) noexcept {
  if (enter()) cowshed_je_inner_dallocx(block, flags);
}
void cowshed_je_sdallocx(void* block, std::size_t size, int flags) noexcept {
  if (enter()) cowshed_je_inner_sdallocx(block, size, flags);
}
}
