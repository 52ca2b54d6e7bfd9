#include <atomic>
#include <cerrno>
#include <cstdint>
#include <new>
#include <pthread.h>

// The mutex of the private jemalloc.  ThreadSanitizer would watch libc's mutexes, and ends the
// program when a thread holds more than 64, as jemalloc does during a fork.  It sees the atomics of
// this mutex, which also order memory accesses.

namespace {

// Drepper, "Futexes Are Tricky", mutex 2.
enum : std::uint32_t { kFree, kLocked, kContended };

std::atomic<std::uint32_t>& word(pthread_mutex_t* mutex) {
  static_assert(sizeof(std::atomic<std::uint32_t>) <= sizeof(pthread_mutex_t));
  return *reinterpret_cast<std::atomic<std::uint32_t>*>(mutex);
}

}  // namespace

extern "C" {

int cowshed_je_mutex_init(pthread_mutex_t* mutex, const pthread_mutexattr_t*) {
  new (mutex) std::atomic<std::uint32_t>(kFree);
  return 0;
}

int cowshed_je_mutex_trylock(pthread_mutex_t* mutex) {
  std::uint32_t expected = kFree;
  return word(mutex).compare_exchange_strong(expected, kLocked, std::memory_order_acquire) ? 0
                                                                                           : EBUSY;
}

int cowshed_je_mutex_lock(pthread_mutex_t* mutex) {
  if (cowshed_je_mutex_trylock(mutex) == 0) return 0;
  while (word(mutex).exchange(kContended, std::memory_order_acquire) != kFree)
    word(mutex).wait(kContended, std::memory_order_relaxed);
  return 0;
}

int cowshed_je_mutex_unlock(pthread_mutex_t* mutex) {
  if (word(mutex).exchange(kFree, std::memory_order_release) == kContended)
    word(mutex).notify_one();
  return 0;
}
}
