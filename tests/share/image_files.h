#pragma once

#include <cowshed/share/codec.h>
#include <cowshed/share/content.h>
#include <cowshed/share/image.h>
#include <cowshed/share/image_format.h>
#include <cowshed/share/parcel_format.h>
#include <cowshed/tests/support/folder.h>

#include "../support/image_objects.h"
#include "share.h"

// Images to test with, and how to damage them.
namespace cowshed::test {

struct Sums {
  std::uint64_t nodes = 0;
  std::uint64_t words = 0;
  std::uint64_t table = 0;
  std::uint64_t array = 0;
};

// Nodes, containers, an array and what is not spawn-safe, all published; not frozen.
inline Sums fill(Arena& arena) {
  const UseArena use(arena);
  Sums sums;
  const Node* nodes = nullptr;
  for (std::uint64_t i = 0; i < 1000; ++i) nodes = arena.make<Node>(Node{nodes, i}).value();
  auto* words = arena.make<Words>().value();
  auto* table = arena.make<Table>().value();
  for (std::uint64_t i = 0; i < 500; ++i) {
    const Text text(i % 40, 'x');
    (*words)[text] += i;
    (*table)[i % 70].push_back(text);
  }
  const auto array = arena.make_array<std::uint64_t>(3000).value();
  std::iota(array.begin(), array.end(), 5);
  auto* pmr = arena.make<PmrNumbers>().value();
  pmr->assign(100, 7);
  EXPECT_TRUE(publish("nodes", nodes));
  EXPECT_TRUE(publish("words", words));
  EXPECT_TRUE(publish("table", table));
  EXPECT_TRUE(publish("array", array));
  EXPECT_TRUE(publish("pmr", pmr));
  EXPECT_TRUE(publish(nodes->next));
  sums.nodes = sum_of(nodes);
  sums.words = sum_of(*words);
  sums.table = sum_of(*table);
  sums.array = std::accumulate(array.begin(), array.end(), std::uint64_t{0});
  return sums;
}

// Saves such an arena, which is gone afterwards.
inline Sums save_filled(const std::filesystem::path& path) {
  Arena arena = make_arena();
  const Sums sums = fill(arena);
  EXPECT_TRUE(arena.freeze());
  const auto saved = save_image(arena, path);
  EXPECT_TRUE(saved) << saved.error().message;
  return sums;
}

class ImageBytes {
 public:
  explicit ImageBytes(const std::filesystem::path& path)
      : fd_(open(path.c_str(), O_RDWR | O_CLOEXEC)) {}
  ImageBytes(const ImageBytes&) = delete;
  ImageBytes& operator=(const ImageBytes&) = delete;
  ~ImageBytes() { close(fd_); }

  template <class T>
  T read(std::uint64_t offset) const {
    T value;
    EXPECT_EQ(pread(fd_, &value, sizeof value, static_cast<off_t>(offset)),
              static_cast<ssize_t>(sizeof value));
    return value;
  }
  template <class T>
  void write(std::uint64_t offset, const T& value) const {
    EXPECT_EQ(pwrite(fd_, &value, sizeof value, static_cast<off_t>(offset)),
              static_cast<ssize_t>(sizeof value));
  }
  void flip(std::uint64_t offset) const {
    write(offset, static_cast<unsigned char>(read<unsigned char>(offset) ^ 0x10U));
  }
  void resize(std::uint64_t size) const { EXPECT_EQ(ftruncate(fd_, static_cast<off_t>(size)), 0); }
  image_format::Header header() const { return read<image_format::Header>(0); }

  // The header's page and the parcel.
  std::vector<std::byte> head() const {
    std::vector<std::byte> bytes(image_format::kPage + header().parcel_bytes);
    EXPECT_EQ(pread(fd_, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    return bytes;
  }
  void put(const std::vector<std::byte>& head) const {
    EXPECT_EQ(pwrite(fd_, head.data(), head.size(), 0), static_cast<ssize_t>(head.size()));
  }

  // With the checksum that it should have.
  using Change = std::function<void(image_format::Header&, parcel_format::Contents::Arena&)>;
  void forge(const Change& change) const {
    image_format::Header forged = header();
    auto bytes = head();
    Decoder from(std::span<const std::byte>(bytes).subspan(image_format::kPage));
    auto contents = parcel_format::read(from);
    change(forged, contents.arenas.front());
    Encoder to = Encoder::in_memory();
    parcel_format::write(to, contents);
    internal::Content parcel = to.finish();
    bytes.resize(image_format::kPage);
    bytes.insert(bytes.end(), parcel.view().begin(), parcel.view().end());
    forged.parcel_bytes = parcel.view().size();
    std::memcpy(bytes.data(), &forged, sizeof forged);
    forged.checksum = image_format::checksum_of(bytes);
    std::memcpy(bytes.data(), &forged, sizeof forged);
    put(bytes);
  }

 private:
  int fd_;
};

}  // namespace cowshed::test
