#pragma once

#include <span>
#include <unistd.h>

#include <cowshed/share/ref.h>

#include "image_objects.h"

// What arena_transfer_test sends to arena_receiver after the arenas.
namespace cowshed::test {

struct Sent {
  Ref<Node> nodes;
  Ref<Words> words;
  Ref<std::span<const std::uint64_t>> array;
  Ref<PmrNumbers> pmr;
  Ref<Node> withdrawn;
  Ref<Node> open;
  Ref<Words> wrong;
};

template <class T>
bool write_bytes(int fd, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  return write(fd, &value, sizeof value) == static_cast<ssize_t>(sizeof value);
}

template <class T>
T read_bytes(int fd) {
  T value{};
  return read(fd, static_cast<void*>(&value), sizeof value) == static_cast<ssize_t>(sizeof value)
             ? value
             : T{};
}

}  // namespace cowshed::test
