#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

// System calls that channels use to map memory and to synchronise processes.
namespace cowshed::internal {

// Maps a part of a file, shared, at a multiple of 2 MiB, as huge pages need it.  Returns null with
// an errno.
std::byte* map_shared(int file, std::uint64_t offset, std::uint64_t bytes);

// Sleeps while the word is `seen`, for at most `time`.
enum class Woken : std::uint8_t { by_peer, by_time, by_change };  // a signal counts as a change
Woken futex_wait(const void* word, std::uint32_t seen, std::chrono::nanoseconds time);
// Returns how many threads it woke.
int futex_wake(const void* word, int count);

// Locks a byte of a file by fcntl(2), for this open file description.  Returns 0 or an errno;
// EAGAIN: another one has the lock.
int lock_byte(int file, std::uint32_t index);
void unlock_byte(int file, std::uint32_t index);
// Returns whether another open file description has the lock.
bool byte_is_locked(int file, std::uint32_t index);

// Barriers by membarrier(2).  The call orders the memory accesses of all threads of registered
// processes.  So of two sides that store and then load, only the rare one needs a barrier: commit
// and unlock, the frequent side, need none.  register_for_barriers() returns 0 or an errno.
int register_for_barriers();
void barrier_in_all_processes();

// Returns whether the thread is stopped by a signal or a tracer.
bool thread_is_stopped(std::uint32_t thread);

}  // namespace cowshed::internal
