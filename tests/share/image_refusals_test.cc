#include <cowshed/share/image.h>
#include <cowshed/share/image_format.h>

#include "../support/image_objects.h"
#include "image_files.h"
#include "share.h"

namespace cowshed {
namespace {

namespace fs = std::filesystem;
using test::fill;
using test::Folder;
using test::ImageBytes;
using test::save_filled;

ErrorCode error_of(const fs::path& path) {
  const auto opened = open_image(path);
  EXPECT_FALSE(opened);
  return opened ? ErrorCode{} : opened.error().code;
}

std::string message_of(const fs::path& path) {
  const auto opened = open_image(path);
  return opened ? "" : opened.error().message;
}

TEST(Image, RefusesEveryFlippedByteBeforeThePayload) {
  const Folder folder;
  save_filled(folder / "image");
  const ImageBytes bytes(folder / "image");
  const std::uint64_t end = bytes.head().size();
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

TEST(Image, RefusesATruncatedFile) {
  const Folder folder;
  save_filled(folder / "image");
  const auto header = ImageBytes(folder / "image").header();
  const auto bytes = ImageBytes(folder / "image").head();
  const std::uint64_t end = fs::file_size(folder / "image");
  std::ofstream cut(folder / "cut", std::ios::binary);
  const ImageBytes view(folder / "cut");
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    view.resize(size);
    ASSERT_EQ(error_of(folder / "cut"), ErrorCode::bad_image) << size;
    if (size < bytes.size()) view.write(size, bytes[size]);
  }
  for (const std::uint64_t size :
       {header.payload, header.payload + 1, header.payload + 4096, end - 1}) {
    view.resize(size);
    EXPECT_THAT(message_of(folder / "cut"), HasSubstr("is truncated")) << size;
  }
  view.resize(end);
  EXPECT_TRUE(open_image(folder / "cut"));
}

TEST(Image, RefusesWhatIsNotForThisProgram) {
  const Folder folder;
  save_filled(folder / "image");
  const ImageBytes bytes(folder / "image");
  const auto right = bytes.header();
  const auto expect = [&](ErrorCode code, const char* text,
                          const std::function<void(image_format::Header&)>& change) {
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
  expect(ErrorCode::unsupported, "version 1", [](auto& header) { header.version = 1; });
  EXPECT_TRUE(open_image(folder / "image"));
}

// With a right checksum: made by another program, or to do harm.
TEST(Image, RefusesWhatContradictsItself) {
  const Folder folder;
  save_filled(folder / "image");
  const ImageBytes bytes(folder / "image");
  const auto right = bytes.head();
  constexpr std::uint64_t kHuge = ~std::uint64_t{0} - 2_MiB + 1;
  using Description = ArenaCore::Description;
  const std::vector<std::function<void(Description&)>> changes = {
      [](auto& arena) { arena.begin = 0; },
      [](auto& arena) { arena.begin += 4096; },
      [](auto& arena) { arena.begin = kHuge; },
      [](auto& arena) { arena.begin = std::uint64_t{1} << 47U; },
      [](auto& arena) { arena.capacity = 0; },
      [](auto& arena) { arena.capacity = kHuge; },
      [](auto& arena) { arena.capacity = arena.used - 2_MiB; },
      [](auto& arena) { arena.used += 4096; },
      [](auto& arena) { arena.used = kHuge; },
      [](auto& arena) { arena.mode = static_cast<FreezeMode>(2); },
      [](auto& arena) { arena.generation = 0; },
      [](auto& arena) { arena.name.assign(64, 'x'); },
      [](auto& arena) { arena.name.clear(); },
      [](auto& arena) { arena.segments.clear(); },
      [](auto& arena) { arena.segments.front().run.begin = 2_MiB; },
      [](auto& arena) { arena.segments.front().run.end += 2_MiB; },
      [](auto& arena) { arena.segments.front().fd = 1; },
      [](auto& arena) { arena.segments.front().fd = -1; },
      [](auto& arena) { arena.segments.front().payload = 4096; },
      [](auto& arena) { arena.past.holes = {{0, arena.used + 2_MiB}}; },
      [](auto& arena) { arena.past.holes = {{2_MiB, 2_MiB}}; },
      [](auto& arena) { arena.past.holes = {{4096, 2_MiB}}; },
      [](auto& arena) { arena.past.small = {{0, 2_MiB}, {0, 2_MiB}}; },
  };
  const std::vector<std::function<void(registry::Object&)>> object_changes = {
      [](auto& object) { object.address += 1_GiB; },
      [](auto& object) { object.address = kHuge; },
      [](auto& object) { object.address = 0; },
      [](auto& object) { object.bytes = ~std::uint64_t{0}; },
      [](auto& object) { object.alignment = 0; },
      [](auto& object) { object.alignment = 3; },
      [](auto& object) { object.alignment = std::uint64_t{1} << 47U; },
      [](auto& object) { object.bytes = 8; },
      [](auto& object) { object.generation = 0; },
      [](auto& object) { object.name.assign(64, 'x'); },
      [](auto& object) { object.name[1] = '\0'; },
  };
  std::vector<ImageBytes::Change> all = {
      [](auto& header, auto&) { header.base += 2_MiB; },
      [](auto& header, auto&) { header.payload = kHuge; },
      [](auto& header, auto&) { header.payload = 0; },
      [](auto& header, auto&) { header.payload += 4096; },
  };
  for (const auto& change : changes)
    all.emplace_back([&](auto&, auto& arena) { change(arena.description); });
  for (const auto& change : object_changes)
    all.emplace_back([&](auto&, auto& arena) { change(arena.objects.front()); });
  for (std::size_t i = 0; i < all.size(); ++i) {
    bytes.forge(all[i]);
    EXPECT_EQ(error_of(folder / "image"), ErrorCode::bad_image) << "change " << i;
    bytes.put(right);
  }
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
  EXPECT_THAT(opened.error().message, HasSubstr("has the addresses of arena 'index'"));
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

  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze());
  for (const char* name : {"fifo", "folder"})
    EXPECT_EQ(save_image(arena, folder / name).error().code, ErrorCode::invalid_argument) << name;
  EXPECT_EQ(save_image(arena, "/dev/null").error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(save_image(arena, folder / "absent/image").error().system_errno, ENOENT);
  EXPECT_EQ(folder.names().size(), 5U);
}

}  // namespace
}  // namespace cowshed
