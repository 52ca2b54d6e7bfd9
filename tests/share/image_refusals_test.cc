#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string>
#include <sys/stat.h>
#include <vector>

#include <cowshed/share/image.h>
#include <cowshed/share/image_format.h>
#include <cowshed/share/registry.h>

#include "../support/image_objects.h"
#include "image_files.h"
#include "make_arena.h"

namespace cowshed {
namespace {

namespace fs = std::filesystem;
namespace format = image_format;
using test::fill;
using test::Folder;
using test::ImageBytes;
using test::make_arena;
using test::save_filled;
using testing::AllOf;
using testing::HasSubstr;

ErrorCode error_of(const fs::path& path) {
  const auto opened = open_image(path);
  EXPECT_FALSE(opened);
  return opened ? ErrorCode{} : opened.error().code;
}

std::string message_of(const fs::path& path) {
  const auto opened = open_image(path);
  return opened ? "" : opened.error().message;
}

TEST(Image, RefusesEveryFlippedByteOfHeaderAndTables) {
  const Folder folder;
  save_filled(folder / "image");
  const ImageBytes bytes(folder / "image");
  const std::uint64_t end = bytes.header().blocks.offset;
  ASSERT_EQ(end, 4096 + 5 * 384U);
  for (std::uint64_t offset = 0; offset < end; ++offset) {
    bytes.flip(offset);
    const auto opened = open_image(folder / "image");
    ASSERT_FALSE(opened) << offset;
    EXPECT_TRUE(opened.error().code == ErrorCode::bad_image ||
                opened.error().code == ErrorCode::unsupported)
        << offset << opened.error().message;
    bytes.flip(offset);
  }
  EXPECT_TRUE(open_image(folder / "image"));
}

TEST(Image, VerifyFindsEveryDamage) {
  const Folder folder;
  {
    Arena arena = make_arena();
    const auto first = arena.make_array<std::uint64_t>(1_MiB).value();  // 8 MiB
    const auto second = arena.make_array<std::uint64_t>(1_MiB).value();
    ASSERT_TRUE(publish("first", first));
    ASSERT_TRUE(publish("second", second));
    ASSERT_TRUE(arena.freeze());
    ASSERT_TRUE(save_image(arena, folder / "image"));
  }
  const ImageBytes bytes(folder / "image");
  const auto header = bytes.header();
  for (std::uint64_t i = 0; i < header.blocks.count * 8; ++i) {
    bytes.flip(header.blocks.offset + i);
    EXPECT_TRUE(open_image(folder / "image"));
    const auto verified = verify_image(folder / "image");
    ASSERT_FALSE(verified);
    EXPECT_EQ(verified.error().code, ErrorCode::bad_image);
    bytes.flip(header.blocks.offset + i);
  }
  ASSERT_TRUE(verify_image(folder / "image"));
  const auto object = bytes.read<format::Object>(header.objects.offset + sizeof(format::Object));
  ASSERT_STREQ(object.name.data(), "second");
  for (const std::uint64_t at : {object.offset, object.offset + 5 * 1_MiB + 123}) {
    bytes.flip(header.payload + at);
    const auto verified = verify_image(folder / "image");
    ASSERT_FALSE(verified);
    EXPECT_THAT(verified.error().message,
                AllOf(HasSubstr("at offset " + std::to_string(at / 2_MiB * 2_MiB) + " "),
                      HasSubstr("'second'")));
    EXPECT_TRUE(open_image(folder / "image")) << "the payload is verify_image()'s";
    bytes.flip(header.payload + at);
  }
  std::size_t told = 0;
  ASSERT_TRUE(verify_image(folder / "image", [&](std::size_t done, std::size_t) { told = done; }));
  EXPECT_EQ(told, header.used);
}

TEST(Image, RefusesATruncatedFile) {
  const Folder folder;
  save_filled(folder / "image");
  const auto header = ImageBytes(folder / "image").header();
  std::vector<char> bytes(header.blocks.offset + header.blocks.count * 8);
  std::ifstream(folder / "image", std::ios::binary)
      .read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  std::ofstream cut(folder / "cut", std::ios::binary);
  const ImageBytes view(folder / "cut");
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    view.resize(size);
    ASSERT_EQ(error_of(folder / "cut"), ErrorCode::bad_image) << size;
    if (size < bytes.size()) {
      view.write(size, bytes[size]);
    }
  }
  for (const std::uint64_t size : {header.payload, header.payload + 1, header.payload + 4096,
                                   header.payload + header.used - 1}) {
    view.resize(size);
    EXPECT_THAT(message_of(folder / "cut"), HasSubstr("is truncated")) << size;
    EXPECT_FALSE(verify_image(folder / "cut"));
  }
  view.resize(header.payload + header.used);
  EXPECT_TRUE(open_image(folder / "cut"));
}

TEST(Image, RefusesWhatIsNotForThisProgram) {
  const Folder folder;
  save_filled(folder / "image");
  const ImageBytes bytes(folder / "image");
  const auto right = bytes.header();
  const auto expect = [&](ErrorCode code, const char* text,
                          const std::function<void(format::Header&)>& change) {
    auto wrong = right;
    change(wrong);
    bytes.write(0, wrong);  // its checksum is of no use where the rest is not understood
    const auto opened = open_image(folder / "image");
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code, code);
    EXPECT_THAT(opened.error().message, AllOf(HasSubstr(text), HasSubstr("image ")));
    bytes.write(0, right);
  };
  expect(ErrorCode::bad_image, "is not an image", [](auto& header) { header.magic[0] = 'X'; });
  expect(ErrorCode::unsupported, "version 2", [](auto& header) { header.version = 2; });
  expect(ErrorCode::unsupported, "architecture", [](auto& header) { header.architecture = 183; });
  expect(ErrorCode::unsupported, "architecture",
         [](auto& header) { header.byte_order = 0x04030201; });
  expect(ErrorCode::unsupported, "65536 bytes", [](auto& header) { header.page_bytes = 65536; });
  EXPECT_TRUE(open_image(folder / "image"));
}

// With right checksums: made by another program, or to do harm.
TEST(Image, RefusesAHeaderThatContradictsItself) {
  const Folder folder;
  save_filled(folder / "image");
  const ImageBytes bytes(folder / "image");
  const auto right = bytes.header();
  constexpr std::uint64_t kHuge = ~std::uint64_t{0} - 2_MiB + 1;
  const std::vector<std::function<void(format::Header&)>> changes = {
      [](auto& header) { header.base = 0; },
      [](auto& header) { header.generation = std::uint64_t{1} << 32U; },
      [](auto& header) { header.base += 4096; },
      [](auto& header) { header.base = kHuge; },
      [](auto& header) { header.base = std::uint64_t{1} << 47U; },
      [](auto& header) { header.capacity = 0; },
      [](auto& header) { header.capacity = kHuge; },
      [](auto& header) { header.capacity = header.used - 2_MiB; },
      [](auto& header) { header.used += 4096; },
      [](auto& header) { header.used = kHuge; },
      [](auto& header) { header.payload = kHuge; },
      [](auto& header) { header.payload = 0; },
      [](auto& header) { header.payload += 4096; },
      [](auto& header) { header.objects.count = ~std::uint64_t{0}; },
      [](auto& header) { header.objects.count += 1; },
      [](auto& header) { header.objects.offset = 0; },
      [](auto& header) { header.holes.offset = kHuge; },
      [](auto& header) { header.holes.count = std::uint64_t{1} << 60U; },
      [](auto& header) {
        header.holes.count = header.blocks.count + 1;
        header.blocks.offset += header.holes.count * sizeof(format::Hole);
      },
      [](auto& header) { header.blocks.offset += 8; },
      [](auto& header) { header.blocks.count += 1; },
      [](auto& header) { header.mode = 2; },
      [](auto& header) { header.generation = 0; },
      [](auto& header) { header.name.fill('x'); },
      [](auto& header) { header.name.fill('\0'); },
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    bytes.forge(changes[i]);
    EXPECT_EQ(error_of(folder / "image"), ErrorCode::bad_image) << "change " << i;
    bytes.write(0, right);
  }
  const auto object = bytes.read<format::Object>(4096);
  const std::vector<std::function<void(format::Object&)>> object_changes = {
      [&](auto& entry) { entry.offset = right.used; },
      [&](auto& entry) { entry.offset = kHuge; },
      [](auto& entry) { entry.bytes = ~std::uint64_t{0}; },
      [](auto& entry) { entry.alignment = 0; },
      [](auto& entry) { entry.alignment = 3; },
      [](auto& entry) {
        entry.alignment = std::uint64_t{1} << 40U;
        entry.offset = 8;
      },
      [](auto& entry) { entry.array = 2; },
      [](auto& entry) { entry.bytes = 8; },
      [](auto& entry) { entry.spawn_safe = 7; },
      [](auto& entry) { entry.name.fill('x'); },
      [](auto& entry) { entry.name.fill('\0'); },
      [](auto& entry) { entry.type.fill('x'); },
  };
  for (std::size_t i = 0; i < object_changes.size(); ++i) {
    auto wrong = object;
    object_changes[i](wrong);
    bytes.write(4096, wrong);
    std::vector<std::byte> table(right.objects.count * sizeof(format::Object));
    for (std::size_t at = 0; at < table.size(); ++at) {
      table[at] = bytes.read<std::byte>(4096 + at);
    }
    bytes.forge([&](auto& header) { header.objects.checksum = format::checksum(table); });
    EXPECT_EQ(error_of(folder / "image"), ErrorCode::bad_image) << "change " << i;
  }
  bytes.write(4096, object);
  bytes.write(0, right);
  EXPECT_TRUE(open_image(folder / "image"));
}

TEST(Image, RefusesAnAddressThatIsTaken) {
  const Folder folder;
  Arena arena = make_arena();
  fill(arena);
  ASSERT_TRUE(arena.freeze());
  ASSERT_TRUE(save_image(arena, folder / "image"));
  const auto opened = open_image(folder / "image", {.publish = false});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::address_taken);
  EXPECT_THAT(opened.error().message, HasSubstr("/memfd:cowshed:index (deleted) is mapped at"));
}

TEST(Image, RefusesANameInUse) {
  const Folder folder;
  save_filled(folder / "image");
  Arena other = Arena::create({.name = "other",
                               .capacity = 2_MiB,
                               .address = ImageBytes(folder / "image").header().base + 1_GiB})
                    .value();
  ASSERT_TRUE(publish("table", other.make<int>(1).value()));
  const auto opened = open_image(folder / "image");
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(opened.error().message,
              AllOf(HasSubstr("'table' is published already"), HasSubstr("'other'")));
  EXPECT_EQ(find<test::Node>("nodes").error().code, ErrorCode::not_published);
  EXPECT_EQ(published().size(), 1U);
  const auto unpublished = open_image(folder / "image", {.publish = false});
  EXPECT_TRUE(unpublished);
  EXPECT_EQ(published().size(), 1U);
}

TEST(Image, RefusesWhatIsNoFile) {
  const Folder folder;
  ASSERT_EQ(mkfifo((folder / "fifo").c_str(), 0600), 0);
  fs::create_directory(folder / "folder");
  fs::create_symlink("nothing", folder / "dangling");
  std::ofstream(folder / "empty").flush();
  std::ofstream(folder / "text") << "no image at all, but a text that is long enough";
  EXPECT_EQ(error_of(folder / "fifo"), ErrorCode::invalid_argument);
  EXPECT_EQ(error_of(folder / "folder"), ErrorCode::invalid_argument);
  EXPECT_EQ(error_of("/dev/null"), ErrorCode::invalid_argument);
  EXPECT_EQ(error_of(folder / "empty"), ErrorCode::bad_image);
  EXPECT_EQ(error_of(folder / "text"), ErrorCode::bad_image);
  EXPECT_EQ(open_image(folder / "dangling").error().system_errno, ENOENT);
  EXPECT_EQ(open_image(folder / "absent").error().system_errno, ENOENT);
  EXPECT_EQ(verify_image(folder / "fifo").error().code, ErrorCode::invalid_argument);

  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze());
  for (const char* name : {"fifo", "folder"}) {
    EXPECT_EQ(save_image(arena, folder / name).error().code, ErrorCode::invalid_argument) << name;
  }
  EXPECT_EQ(save_image(arena, "/dev/null").error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(save_image(arena, folder / "absent/image").error().system_errno, ENOENT);
  EXPECT_EQ(folder.names().size(), 5U);
}

}  // namespace
}  // namespace cowshed
