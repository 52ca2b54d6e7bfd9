#pragma once

#include <cowshed/tests/share/share.h>

namespace cowshed::test {

// A channel's shared memory, mapped once more, to look at or to do harm to.
class ChannelMemory {
 public:
  template <class Of>
  explicit ChannelMemory(const Of& channel) {
    const int file = channel.descriptors().segment;
    bytes_ = static_cast<std::size_t>(lseek(file, 0, SEEK_END));
    void* base = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (base == MAP_FAILED) throw std::runtime_error("a channel cannot be mapped");
    base_ = static_cast<std::byte*>(base);
  }
  ~ChannelMemory() { munmap(base_, bytes_); }
  ChannelMemory(const ChannelMemory&) = delete;
  ChannelMemory& operator=(const ChannelMemory&) = delete;

  std::byte* at(std::uint64_t place) const { return base_ + place; }
  const channel_layout::Constants& constants() const {
    return *reinterpret_cast<const channel_layout::Constants*>(base_);
  }
  channel_layout::Control& control() const {
    return *reinterpret_cast<channel_layout::Control*>(base_ + channel_layout::kPage);
  }
  channel_layout::Word& word(std::uint32_t block) const {
    return reinterpret_cast<channel_layout::Word*>(base_ + channel_layout::Plan::kWords)[block];
  }
  channel_layout::ByteSlot& first_slot() const {
    return *reinterpret_cast<channel_layout::ByteSlot*>(base_ +
                                                        channel_layout::Plan(constants()).ring);
  }
  // Of all that is there of it but the blocks.
  std::size_t hash() const {
    return std::hash<std::string_view>{}(
        {reinterpret_cast<const char*>(base_), channel_layout::Plan(constants()).base_bytes});
  }

 private:
  std::size_t bytes_ = 0;
  std::byte* base_ = nullptr;
};

}  // namespace cowshed::test
