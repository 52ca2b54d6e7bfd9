#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

// The system calls of a channel.
namespace cowshed::internal {

// Maps a part of a file shared, at a multiple of 2 MiB: huge pages need that.  Null, with errno:
// the kernel refuses.
std::byte* map_shared(int file, std::uint64_t offset, std::uint64_t bytes);

// Sleeps while the word is `seen`, for at most `time`.
enum class Woken : std::uint8_t { by_peer, by_time, by_change };  // or by a signal
Woken futex_wait(const void* word, std::uint32_t seen, std::chrono::nanoseconds time);
// How many it woke.
int futex_wake(const void* word, int count);

// Locks of the kernel's on single bytes of a file, of `file`'s description.  False: another has it.
bool lock_byte(int file, std::uint32_t index);
void unlock_byte(int file, std::uint32_t index);
// Whether a description other than `file`'s has it.
bool byte_is_locked(int file, std::uint32_t index);

// membarrier(2): 0 or an errno.  After a barrier every thread of a registered process sees what was
// stored before it, and what they had stored is seen after it: so the rare side of a Dekker pair
// calls it, and commit and unlock, the busy side, have no barrier.
int register_for_barriers();
void barrier_in_all_processes();

// Whether the thread is stopped by a signal or a tracer.
bool thread_is_stopped(std::uint32_t thread);

// Monotonic.
std::uint64_t nanoseconds_now();

}  // namespace cowshed::internal
