#include <algorithm>
#include <array>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <functional>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <iterator>
#include <numeric>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <cowshed/share/image.h>
#include <cowshed/share/image_format.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/spawn_safe.h>

#include "../support/image_objects.h"
#include "../support/subprocess.h"
#include "child.h"
#include "make_arena.h"

namespace cowshed {
namespace {

namespace fs = std::filesystem;
namespace format = image_format;
using test::make_arena;
using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// A folder of the test's own.
class Folder {
 public:
  Folder() {
    std::string pattern = fs::temp_directory_path() / "image_test.XXXXXX";
    path_ = mkdtemp(pattern.data());
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { fs::remove_all(path_); }

  fs::path operator/(const char* name) const { return path_ / name; }
  const fs::path& path() const { return path_; }
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const auto& entry : fs::directory_iterator(path_)) {
      result.push_back(entry.path().filename());
    }
    return result;
  }

 private:
  fs::path path_;
};

struct Sums {
  std::uint64_t nodes = 0;
  std::uint64_t words = 0;
  std::uint64_t table = 0;
  std::uint64_t array = 0;
};

// Nodes, containers, an array and what is not spawn-safe, all published; not frozen.
Sums fill(Arena& arena) {
  const UseArena use(arena);
  Sums sums;
  const test::Node* nodes = nullptr;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    nodes = arena.make<test::Node>(test::Node{nodes, i}).value();
  }
  auto* words = arena.make<test::Words>().value();
  auto* table = arena.make<test::Table>().value();
  for (std::uint64_t i = 0; i < 500; ++i) {
    const test::Text text(i % 40, 'x');
    (*words)[text] += i;
    (*table)[i % 70].push_back(text);
  }
  const auto array = arena.make_array<std::uint64_t>(3000).value();
  std::iota(array.begin(), array.end(), 5);
  auto* pmr = arena.make<test::PmrNumbers>().value();
  pmr->assign(100, 7);
  EXPECT_TRUE(publish("nodes", nodes));
  EXPECT_TRUE(publish("words", words));
  EXPECT_TRUE(publish("table", table));
  EXPECT_TRUE(publish("array", array));
  EXPECT_TRUE(publish("pmr", pmr));
  EXPECT_TRUE(publish(nodes->next));
  sums.nodes = test::sum_of(nodes);
  sums.words = test::sum_of(*words);
  sums.table = test::sum_of(*table);
  sums.array = std::accumulate(array.begin(), array.end(), std::uint64_t{0});
  return sums;
}

// Saves such an arena, which is gone afterwards.
Sums save_filled(const fs::path& path) {
  Arena arena = make_arena();
  const Sums sums = fill(arena);
  EXPECT_TRUE(arena.freeze());
  const auto saved = save_image(arena, path);
  EXPECT_TRUE(saved) << saved.error().message;
  return sums;
}

ErrorCode error_of(const fs::path& path) {
  const auto opened = open_image(path);
  EXPECT_FALSE(opened);
  return opened ? ErrorCode{} : opened.error().code;
}

std::string message_of(const fs::path& path) {
  const auto opened = open_image(path);
  return opened ? "" : opened.error().message;
}

class ImageBytes {
 public:
  explicit ImageBytes(const fs::path& path) : fd_(open(path.c_str(), O_RDWR | O_CLOEXEC)) {}
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
  format::Header header() const { return read<format::Header>(0); }

  // With the checksum that it should have.
  void forge(const std::function<void(format::Header&)>& change) const {
    format::Header forged = header();
    change(forged);
    forged.checksum = format::checksum(forged);
    write(0, forged);
  }

 private:
  int fd_;
};

TEST(Image, IsReadByAnotherProgram) {
  const Folder folder;
  const Sums sums = save_filled(folder / "image");
  EXPECT_THAT(folder.names(), testing::ElementsAre("image"));
  const auto finished = test::run({COWSHED_IMAGE_READER, folder / "image"});
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;
  EXPECT_EQ(finished.out, "index " + std::to_string(sums.nodes) + " " + std::to_string(sums.words) +
                              " " + std::to_string(sums.table) + " " + std::to_string(sums.array) +
                              " not_spawn_safe wrong_type not_published 0\n");
}

TEST(Image, GivesPointersToCodeToTheSameProgramAtTheSameAddressesOnly) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers choose the addresses of a program";
#endif
  char randomised = '0';
  std::ifstream("/proc/sys/kernel/randomize_va_space") >> randomised;
  if (randomised != '2') {
    GTEST_SKIP() << "addresses are not randomised here (kernel.randomize_va_space)";
  }
  const Folder folder;
  const std::vector<std::string> find = {COWSHED_IMAGE_READER, "find", folder / "image"};
  const auto fixed = [] { personality(ADDR_NO_RANDOMIZE); };
  ASSERT_EQ(test::run({COWSHED_IMAGE_READER, "save", folder / "image"}, fixed).exit_status(), 0);
  EXPECT_EQ(test::run(find, fixed).out, "found\n");
  EXPECT_EQ(test::run(find).out, "not_spawn_safe\n");
}

TEST(Image, EndsWhoWritesToItOrReadsWhatWasCutOff) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the signals belong to the sanitizer";
#endif
  const Folder folder;
  save_filled(folder / "image");
  const auto arena = open_image(folder / "image");
  ASSERT_TRUE(arena);
  const auto nodes = find<test::Node>("nodes").value();
  const auto writes = test::run_in_child([&]() -> std::string {
    const_cast<test::Node&>(*nodes).value = 1;
    return "wrote";
  });
  EXPECT_EQ(writes.signal, SIGSEGV);
  const auto reads = test::run_in_child([&] {
    fs::resize_file(folder / "image", 4096);
    return std::to_string(nodes->value);
  });
  EXPECT_EQ(reads.signal, SIGBUS);
}

class ImageInMode : public testing::TestWithParam<FreezeMode> {};
INSTANTIATE_TEST_SUITE_P(Modes, ImageInMode,
                         testing::Values(FreezeMode::strict, FreezeMode::lenient),
                         [](const auto& mode) {
                           return mode.param == FreezeMode::strict ? "strict" : "lenient";
                         });

TEST_P(ImageInMode, IsAFrozenArena) {
  const Folder folder;
  ArenaStats before;
  std::byte* base = nullptr;
  {
    Arena arena = make_arena();
    fill(arena);
    ASSERT_TRUE(arena.freeze());
    ASSERT_TRUE(save_image(arena, folder / "image"));
    before = arena.stats();
    base = arena.base();
  }
  const auto arena = open_image(folder / "image", {.mode = GetParam()});
  ASSERT_TRUE(arena) << arena.error().message;
  EXPECT_EQ(arena->name(), "index");
  EXPECT_EQ(arena->base(), base);
  const ArenaStats stats = arena->stats();
  EXPECT_EQ(stats.capacity, before.capacity);
  EXPECT_EQ(stats.used, before.used);
  EXPECT_EQ(stats.live_bytes, before.live_bytes);
  EXPECT_EQ(stats.live_allocations, before.live_allocations);
  EXPECT_EQ(stats.hole_bytes, before.hole_bytes);
  EXPECT_EQ(stats.generation, 1U);
  EXPECT_EQ(stats.huge_page_bytes, 0U);
  EXPECT_THAT(stats.huge_page_misses, IsEmpty());
  EXPECT_TRUE(stats.frozen);
  EXPECT_EQ(stats.mode, GetParam());
  // Saved by this very program, at these addresses.
  const auto pmr = find<test::PmrNumbers>("pmr");
  ASSERT_TRUE(pmr) << pmr.error().message;
  EXPECT_EQ((*pmr)->size(), 100U);
  EXPECT_TRUE(arena->contains(&**pmr));
  EXPECT_TRUE(arena->prefault());
  EXPECT_EQ(arena->private_bytes().value(), 0U);
  // Found twice, it is the same array.
  const auto array = find<std::span<const std::uint64_t>>("array");
  ASSERT_TRUE(array);
  EXPECT_EQ(*array, find<std::span<const std::uint64_t>>("array").value());
  EXPECT_EQ((*array)->size(), 3000U);
  const auto child = test::run_in_child([&] {
    return std::to_string((**array)[2999] + arena->private_bytes().value()) + " " +
           std::to_string(test::sum_of(*find<test::Words>("words").value()));
  });
  EXPECT_EQ(child.said,
            "3004 " + std::to_string(test::sum_of(*find<test::Words>("words").value())));
}

TEST(Image, KeepsItsFileFromALenientArenasStores) {
  const Folder folder;
  save_filled(folder / "image");
  const auto arena = open_image(folder / "image", {.mode = FreezeMode::lenient});
  ASSERT_TRUE(arena);
  const auto nodes = find<test::Node>("nodes").value();
  const_cast<test::Node&>(*nodes).value += 1;
  EXPECT_EQ(arena->private_bytes().value(), 4096U);
  EXPECT_TRUE(verify_image(folder / "image"));
}

TEST(Image, IsThawedAndSavedAgain) {
  const Folder folder;
  const Sums sums = save_filled(folder / "image");
  {
    auto arena = open_image(folder / "image", {.mode = FreezeMode::lenient});
    ASSERT_TRUE(arena);
    const_cast<test::Node&>(*find<test::Node>("nodes").value()).value += 1000;
    ASSERT_TRUE(arena->thaw());
    EXPECT_EQ(save_image(*arena, folder / "thawed").error().code, ErrorCode::arena_not_frozen);
    ASSERT_TRUE(publish("more", arena->make<std::uint64_t>(77).value()));
    const auto refrozen = arena->refreeze();
    ASSERT_TRUE(refrozen) << refrozen.error().message;
    EXPECT_EQ(arena->private_bytes().value(), 0U);
    ASSERT_TRUE(save_image(*arena, folder / "image"));
  }
  EXPECT_TRUE(verify_image(folder / "image"));
  const auto arena = open_image(folder / "image");
  ASSERT_TRUE(arena);
  EXPECT_EQ(arena->stats().generation, 2U);
  EXPECT_EQ(*find<std::uint64_t>("more").value(), 77U);
  EXPECT_EQ(test::sum_of(&*find<test::Node>("nodes").value()), sums.nodes + 1000);
  EXPECT_THAT(folder.names(), testing::ElementsAre("image"));
}

TEST(Image, NeedsAFrozenArena) {
  const Folder folder;
  const Arena arena = make_arena();
  EXPECT_EQ(save_image(arena, folder / "image").error().code, ErrorCode::arena_not_frozen);
  EXPECT_THAT(folder.names(), IsEmpty());
}

TEST(Image, OfAnEmptyArena) {
  const Folder folder;
  {
    Arena arena = make_arena();
    ASSERT_TRUE(arena.freeze());
    ASSERT_TRUE(save_image(arena, folder / "image"));
  }
  EXPECT_TRUE(verify_image(folder / "image"));
  const auto arena = open_image(folder / "image");
  ASSERT_TRUE(arena) << arena.error().message;
  EXPECT_EQ(arena->stats().used, 0U);
}

// 64 MiB given back, 64 MiB of zeros.
TEST(Image, IsSparse) {
  const Folder folder;
  std::vector<std::size_t> told;
  {
    Arena arena = make_arena(256_MiB);
    void* freed = arena.allocate(64_MiB);
    const auto zeros = arena.make_array<std::uint64_t>(8_MiB).value();
    ASSERT_TRUE(publish("zeros", zeros));
    arena.deallocate(freed, 64_MiB);
    ASSERT_TRUE(arena.freeze());
    ASSERT_TRUE(save_image(arena, folder / "image", [&](std::size_t done, std::size_t total) {
      told.push_back(done);
      EXPECT_LE(done, total);
    }));
  }
  ASSERT_THAT(told, Not(IsEmpty()));
  struct stat status {};
  ASSERT_EQ(stat((folder / "image").c_str(), &status), 0);
  EXPECT_EQ(told.back(), static_cast<std::size_t>(status.st_size) - 2_MiB);
  EXPECT_GE(told.back(), 64_MiB);
  EXPECT_LT(static_cast<std::size_t>(status.st_blocks) * 512, 1_MiB);
  EXPECT_TRUE(verify_image(folder / "image"));
  const auto arena = open_image(folder / "image");
  ASSERT_TRUE(arena);
  EXPECT_EQ((*find<std::span<const std::uint64_t>>("zeros"))->size(), 8_MiB);
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

// What an open costs: the bytes and calls of read(2), and the page faults.
struct Cost {
  long read_bytes = 0;
  long read_calls = 0;
  long faults = 0;
  long own_bytes = 0;  // that this itself reads: the next one counts them

  static Cost now() {
    Cost cost;
    std::ifstream file("/proc/self/io");
    const std::string text(std::istreambuf_iterator<char>(file), {});
    cost.own_bytes = static_cast<long>(text.size());
    std::istringstream io(text);
    std::string key;
    for (long value = 0; io >> key >> value;) {
      if (key == "rchar:") {
        cost.read_bytes = value;
      } else if (key == "syscr:") {
        cost.read_calls = value;
      }
    }
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    cost.faults = usage.ru_minflt + usage.ru_majflt;
    return cost;
  }
};

// The least of some: what else goes on in the process may fault too.
Cost cost_of_opening(const fs::path& path) {
  Cost least;
  for (int i = 0; i < 8; ++i) {
    const Cost before = Cost::now();
    const auto arena = open_image(path);
    const Cost after = Cost::now();
    EXPECT_TRUE(arena) << arena.error().message;
    least = {after.read_bytes - before.read_bytes - before.own_bytes,
             after.read_calls - before.read_calls,
             i == 0 ? after.faults - before.faults
                    : std::min(least.faults, after.faults - before.faults),
             0};
  }
  return least;
}

TEST(Image, IsOpenedAtACostThatIsIndependentOfItsSize) {
  const Folder folder;
  save_filled(folder / "small");
  save_filled(folder / "large");
  const ImageBytes bytes(folder / "large");
  // 256 GiB of zeros; the checksums are not looked at.
  bytes.forge([](auto& header) {
    header.used = header.capacity = 256_GiB;
    header.payload = 4_MiB;
    header.blocks.count = header.used / 2_MiB;
  });
  bytes.resize(4_MiB + 256_GiB);
  const Cost small = cost_of_opening(folder / "small");
  const Cost large = cost_of_opening(folder / "large");
  if (small.read_calls == 0) {
    GTEST_SKIP() << "this kernel does not account I/O (/proc/self/io)";
  }
  EXPECT_EQ(small.read_bytes, large.read_bytes);
  EXPECT_EQ(small.read_calls, large.read_calls);
  EXPECT_LE(large.faults, small.faults + 4);
}

TEST(Image, ReplacesAFileAsAWhole) {
  const Folder folder;
  const Sums sums = save_filled(folder / "image");
  const auto arena = open_image(folder / "image");
  ASSERT_TRUE(arena);
  const mode_t before = umask(027);
  {
    // Another one, of other content, at the same path.
    Arena other = make_arena();
    ASSERT_TRUE(publish("other", other.make<int>(1).value()));
    ASSERT_TRUE(other.freeze());
    fs::create_symlink("image", folder / "link");
    EXPECT_TRUE(save_image(other, folder / "image"));
    EXPECT_TRUE(save_image(other, folder / "link"));
  }
  umask(before);
  EXPECT_EQ(test::sum_of(&*find<test::Node>("nodes").value()), sums.nodes);
  EXPECT_EQ(test::sum_of(*find<test::Words>("words").value()), sums.words);
  EXPECT_FALSE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(fs::status(folder / "image").permissions(), fs::perms(0640));
  EXPECT_THAT(folder.names(), testing::UnorderedElementsAre("image", "link"));
  EXPECT_TRUE(open_image(folder / "image"));
}

TEST(Image, IsOpenedThroughALink) {
  const Folder folder;
  save_filled(folder / "image");
  fs::create_symlink("image", folder / "link");
  EXPECT_TRUE(open_image(folder / "link"));
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

TEST(Image, ThatCannotBeReadOrWritten) {
  const Folder folder;
  save_filled(folder / "image");
  fs::permissions(folder / "image", fs::perms::none);
  fs::permissions(folder.path(), fs::perms(0755));
  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze());
  const auto child = test::run_in_child([&]() -> std::string {
    if (geteuid() == 0 && (setegid(65534) != 0 || seteuid(65534) != 0)) {
      return "cannot become nobody";
    }
    const int opened = open_image(folder / "image").error().system_errno;
    const int saved =
        geteuid() == 65534 ? save_image(arena, folder / "new").error().system_errno : EACCES;
    return std::to_string(opened) + " " + std::to_string(saved);
  });
  EXPECT_EQ(child.said, std::to_string(EACCES) + " " + std::to_string(EACCES));
}

TEST(Image, LeavesNothingWhereTheFileMayNotBeSoLarge) {
  const Folder folder;
  save_filled(folder / "image");
  const auto size = fs::file_size(folder / "image");
  Arena arena = make_arena();
  ASSERT_TRUE(publish("full", arena.make_array<std::uint64_t>(1_MiB).value()));
  ASSERT_TRUE(arena.freeze());
  const auto child = test::run_in_child([&]() -> std::string {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{size + 1_MiB, size + 1_MiB};
    setrlimit(RLIMIT_FSIZE, &limit);
    return std::to_string(save_image(arena, folder / "image").error().system_errno);
  });
  EXPECT_EQ(child.said, std::to_string(EFBIG));
  EXPECT_THAT(folder.names(), testing::ElementsAre("image"));
  EXPECT_EQ(fs::file_size(folder / "image"), size);
  EXPECT_TRUE(verify_image(folder / "image"));
}

TEST(Image, LeavesNothingOnAFullDisk) {
  const Folder folder;
  if (mount("none", folder.path().c_str(), "tmpfs", 0, "size=4m") != 0) {
    GTEST_SKIP() << "a small file system cannot be mounted: " << std::strerror(errno);
  }
  Arena arena = make_arena();
  const auto words = arena.make_array<std::uint64_t>(1_MiB).value();
  std::iota(words.begin(), words.end(), 1);
  ASSERT_TRUE(arena.freeze());
  const auto saved = save_image(arena, folder / "image");
  const auto names = folder.names();
  umount(folder.path().c_str());
  ASSERT_FALSE(saved);
  EXPECT_EQ(saved.error().system_errno, ENOSPC);
  EXPECT_THAT(saved.error().message, HasSubstr("image cannot be written: No space left"));
  EXPECT_THAT(names, IsEmpty());
}

TEST(Image, IsOpenedByOneOfManyThreads) {
  const Folder folder;
  save_filled(folder / "image");
  std::array<std::optional<Expected<Arena>>, 4> results;
  {
    std::vector<std::jthread> threads;
    for (auto& result : results) {
      threads.emplace_back([&] { result.emplace(open_image(folder / "image")); });
    }
  }
  int opened = 0;
  for (const auto& result : results) {
    opened += result->has_value() ? 1 : 0;
    EXPECT_TRUE(*result || result->error().code == ErrorCode::address_taken)
        << result->error().message;
  }
  EXPECT_EQ(opened, 1);
}

TEST(Image, HasTheLongestNameThatThereIs) {
  const Folder folder;
  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze());
  const std::string name(NAME_MAX, 'n');
  EXPECT_TRUE(save_image(arena, folder / name.c_str()));
  EXPECT_THAT(folder.names(), testing::ElementsAre(name));
}

// A child that was forked in the Progress has the same file open under the same name.
TEST(Image, IsLeftToItsSaverByAChild) {
  const Folder folder;
  Arena arena = make_arena(256_MiB);
  std::memset(arena.allocate(65_MiB), 1, 65_MiB);
  ASSERT_TRUE(arena.freeze());
  bool in_child = false;
  const auto saved = save_image(arena, folder / "image", [&](std::size_t done, std::size_t total) {
    if (done == total) {
      return;
    }
    const pid_t pid = fork();
    in_child = pid == 0;
    int status = -1;
    if (!in_child) {
      EXPECT_EQ(waitpid(pid, &status, 0), pid);
      EXPECT_EQ(status, 0);
    }
  });
  if (in_child) {
    _exit(!saved && saved.error().code == ErrorCode::not_inherited ? 0 : 1);
  }
  EXPECT_TRUE(saved) << saved.error().message;
  EXPECT_TRUE(verify_image(folder / "image"));
  EXPECT_THAT(folder.names(), testing::ElementsAre("image"));
}

}  // namespace
}  // namespace cowshed
