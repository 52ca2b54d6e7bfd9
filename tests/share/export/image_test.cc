#include <climits>
#include <sys/mount.h>
#include <sys/personality.h>

#include <cowshed/share/arena_image.h>
#include <cowshed/share/codec.h>
#include <cowshed/share/export/image_format.h>
#include <cowshed/share/export/parcel_format.h>
#include <cowshed/share/wire/content.h>
#include <cowshed/tests/share/export/image_objects.h>
#include <cowshed/tests/share/share.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/subprocess.h>

namespace cowshed {
namespace {

namespace fs = std::filesystem;
using test::Folder;
using test::Node;
using test::PmrNumbers;
using test::sum_of;
using test::Table;
using test::Text;
using test::Words;

// Images to test with, and how to damage them.

struct Sums {
  std::uint64_t nodes, words, table, array;
};

// Nodes, containers, an array and what is not spawn-safe, all published; not frozen.
Sums fill(Arena& arena) {
  const UseArena use(arena);
  const Node* nodes = test::make_nodes(arena, 1000);
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
  EXPECT_TRUE(publish("nodes", nodes) && publish("words", words) && publish("table", table) &&
              publish("array", array) && publish("pmr", pmr) && publish(nodes->next));
  return {sum_of(nodes), sum_of(*words), sum_of(*table),
          std::accumulate(array.begin(), array.end(), std::uint64_t{0})};
}

// Saves such an arena, which is gone afterwards.
Sums save_filled(const std::filesystem::path& path) {
  Arena arena = make_arena();
  const Sums sums = fill(arena);
  EXPECT_TRUE(arena.freeze());
  EXPECT_THAT(value_of(save_image(arena, path)), ElementsAre("pmr"));
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
    EXPECT_EQ(pread(fd_, &value, sizeof value, static_cast<off_t>(offset)), ssize_t{sizeof value});
    return value;
  }
  template <class T>
  void write(std::uint64_t offset, const T& value) const {
    EXPECT_EQ(pwrite(fd_, &value, sizeof value, static_cast<off_t>(offset)), ssize_t{sizeof value});
  }
  void flip(std::uint64_t offset) const {
    write(offset, static_cast<unsigned char>(read<unsigned char>(offset) ^ 0x10U));
  }
  void resize(std::uint64_t size) const { EXPECT_EQ(ftruncate(fd_, static_cast<off_t>(size)), 0); }
  image_format::Header header() const { return read<image_format::Header>(0); }

  // The header's page and the parcel.
  std::vector<std::byte> head() const {
    std::vector<std::byte> bytes(arch::kPage + header().parcel_bytes);
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
    Decoder from(std::span<const std::byte>(bytes).subspan(arch::kPage));
    auto contents = parcel_format::read(from);
    change(forged, contents.arenas.front());
    Encoder to = Encoder::in_memory();
    parcel_format::write(to, contents);
    internal::Content parcel = to.finish();
    bytes.resize(arch::kPage);
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

class Image : public testing::Test {
 protected:
  const Folder folder_;
  const fs::path image_ = folder_ / "image";
};

TEST_F(Image, IsReadByAnotherProgram) {
  const Sums sums = save_filled(image_);
  EXPECT_THAT(folder_.names(), ElementsAre("image"));
  const auto finished = test::run({READER, image_});
  EXPECT_EQ(finished.exit_status(), 0) << finished.err;
  EXPECT_EQ(finished.out, "index " + std::to_string(sums.nodes) + " " + std::to_string(sums.words) +
                              " " + std::to_string(sums.table) + " " + std::to_string(sums.array) +
                              " not_spawn_safe wrong_type not_published 0\n");
}

TEST_F(Image, GivesPointersToCodeToTheSameProgramAtTheSameAddressesOnly) {
  if (test::kSanitized) GTEST_SKIP() << "sanitizers choose the addresses of a program";
  char randomised = '0';
  std::ifstream("/proc/sys/kernel/randomize_va_space") >> randomised;
  if (randomised != '2')
    GTEST_SKIP() << "addresses are not randomised here (kernel.randomize_va_space)";
  const std::vector<std::string> find = {READER, "find", image_};
  const auto fixed = [] { personality(ADDR_NO_RANDOMIZE); };
  const auto random = [] { personality(PER_LINUX); };
  ASSERT_EQ(test::run({READER, "save", image_}, fixed).exit_status(), 0);
  EXPECT_EQ(test::run(find, fixed).out, "ok\n");
  EXPECT_EQ(test::run(find, random).out, "not_spawn_safe\n");
}

TEST_F(Image, EndsWhoWritesToItOrReadsWhatWasCutOff) {
  if (test::kSanitized) GTEST_SKIP() << "the signals belong to the sanitizer";
  save_filled(image_);
  const Arena arena = value_of(open_image(image_));
  const auto nodes = find<Node>("nodes").value();
  const auto writes = run_in_child([&]() -> std::string {
    const_cast<Node&>(*nodes).value = 1;
    return "wrote";
  });
  EXPECT_EQ(writes.signal, SIGSEGV);
  const auto reads = run_in_child([&] {
    fs::resize_file(image_, 4096);
    return std::to_string(nodes->value);
  });
  EXPECT_EQ(reads.signal, SIGBUS);
}

class ImageInMode : public Image, public testing::WithParamInterface<FreezeMode> {};
COWSHED_EVERY_MODE(ImageInMode);

TEST_P(ImageInMode, IsAFrozenArena) {
  ArenaStats before;
  std::byte* base = nullptr;
  {
    Arena arena = make_arena();
    fill(arena);
    ASSERT_TRUE(arena.freeze());
    ASSERT_TRUE(save_image(arena, image_));
    before = arena.stats();
    base = arena.base();
  }
  const Arena arena = value_of(open_image(image_, {.mode = GetParam()}));
  EXPECT_EQ(arena.name(), "index");
  EXPECT_EQ(arena.base(), base);
  const ArenaStats stats = arena.stats();
  EXPECT_EQ(stats.capacity, before.capacity);
  EXPECT_EQ(stats.used, before.used);
  EXPECT_EQ(stats.live_bytes, before.live_bytes);
  EXPECT_EQ(stats.live_allocations, before.live_allocations);
  EXPECT_EQ(stats.hole_bytes, before.hole_bytes);
  EXPECT_EQ(stats.generation, 1U);
  EXPECT_EQ(stats.huge_page_bytes, 0U);
  EXPECT_EQ(stats.small_page_bytes, 0U);
  EXPECT_TRUE(stats.frozen);
  EXPECT_EQ(stats.mode, GetParam());
  // Saved by this very program, at these addresses.
  const auto pmr = value_of(find<PmrNumbers>("pmr"));
  EXPECT_EQ(pmr->size(), 100U);
  EXPECT_TRUE(arena.contains(&*pmr));
  EXPECT_TRUE(arena.prefault());
  EXPECT_EQ(arena.private_bytes().value(), 0U);
  // Found twice, it is the same array.
  const auto array = value_of(find<std::span<const std::uint64_t>>("array"));
  EXPECT_EQ(array, find<std::span<const std::uint64_t>>("array").value());
  EXPECT_EQ(array->size(), 3000U);
  const auto child = run_in_child([&] {
    return std::to_string((*array)[2999] + arena.private_bytes().value()) + " " +
           std::to_string(sum_of(*find<Words>("words").value()));
  });
  EXPECT_EQ(child.said, "3004 " + std::to_string(sum_of(*find<Words>("words").value())));
}

TEST_F(Image, IsThawedAndSavedAgain) {
  const Sums sums = save_filled(image_);
  {
    Arena arena = value_of(open_image(image_, {.mode = FreezeMode::lenient}));
    const_cast<Node&>(*find<Node>("nodes").value()).value += 1000;
    EXPECT_EQ(arena.private_bytes().value(), 4096U);
    ASSERT_TRUE(arena.thaw());
    EXPECT_THAT(save_image(arena, folder_ / "thawed"), Fails(ErrorCode::arena_not_frozen));
    ASSERT_TRUE(publish("more", arena.make<std::uint64_t>(77).value()));
    ASSERT_THAT(arena.refreeze(), Succeeds());
    EXPECT_EQ(arena.private_bytes().value(), 0U);
    ASSERT_TRUE(save_image(arena, image_));
  }
  const Arena arena = value_of(open_image(image_));
  EXPECT_EQ(arena.stats().generation, 2U);
  EXPECT_EQ(*find<std::uint64_t>("more").value(), 77U);
  EXPECT_EQ(sum_of(&*find<Node>("nodes").value()), sums.nodes + 1000);
  EXPECT_THAT(folder_.names(), ElementsAre("image"));
}

TEST_F(Image, OfAnEmptyArena) {
  {
    Arena arena = make_arena();
    ASSERT_TRUE(arena.freeze());
    ASSERT_TRUE(save_image(arena, image_));
  }
  EXPECT_EQ(value_of(open_image(image_)).stats().used, 0U);
  const std::size_t before = test::open_descriptors();
  EXPECT_TRUE(open_image(image_));
  EXPECT_EQ(test::open_descriptors(), before);
}

// 64 MiB given back, 64 MiB of zeros.
TEST_F(Image, IsSparse) {
  std::vector<std::size_t> told;
  {
    Arena arena = make_arena(256_MiB);
    void* freed = arena.allocate(64_MiB);
    const auto zeros = arena.make_array<std::uint64_t>(8_MiB).value();
    ASSERT_TRUE(publish("zeros", zeros));
    arena.deallocate(freed, 64_MiB);
    ASSERT_TRUE(arena.freeze());
    ASSERT_TRUE(save_image(arena, image_, [&](std::size_t done, std::size_t total) {
      told.push_back(done);
      EXPECT_LE(done, total);
    }));
  }
  ASSERT_THAT(told, Not(IsEmpty()));
  struct stat status{};
  ASSERT_EQ(stat(image_.c_str(), &status), 0);
  EXPECT_EQ(told.back(), static_cast<std::size_t>(status.st_size) - 2_MiB);
  EXPECT_GE(told.back(), 64_MiB);
  EXPECT_LT(static_cast<std::size_t>(status.st_blocks) * 512, 1_MiB);
  const Arena arena = value_of(open_image(image_));
  EXPECT_EQ((*find<std::span<const std::uint64_t>>("zeros"))->size(), 8_MiB);
}

// What an open costs: the bytes and calls of read(2), and the page faults.
struct Cost {
  long read_bytes = 0;
  long read_calls = 0;
  long faults = 0;
  long own_bytes = 0;  // that this itself reads: the next one counts them

  static Cost now() {
    Cost cost;
    const std::string text = test::contents_of("/proc/self/io");
    cost.own_bytes = static_cast<long>(text.size());
    std::istringstream io(text);
    std::string key;
    for (long value = 0; io >> key >> value;)
      if (key == "rchar:") cost.read_bytes = value;
      else if (key == "syscr:") cost.read_calls = value;
    cost.faults = test::page_faults();
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

TEST_F(Image, IsOpenedAtACostThatIsIndependentOfItsSize) {
  save_filled(folder_ / "small");
  save_filled(folder_ / "large");
  const ImageBytes bytes(folder_ / "large");
  // 256 GiB of zeros.
  bytes.forge([](auto& header, auto& arena) {
    arena.description.used = arena.description.capacity = 256_GiB;
    arena.description.segments.front().run.end = 256_GiB;
    header.payload = 4_MiB;
  });
  bytes.resize(4_MiB + 256_GiB);
  const Cost small = cost_of_opening(folder_ / "small");
  const Cost large = cost_of_opening(folder_ / "large");
  if (small.read_calls == 0) GTEST_SKIP() << "this kernel does not account I/O (/proc/self/io)";
  EXPECT_EQ(small.read_bytes, large.read_bytes);
  EXPECT_EQ(small.read_calls, large.read_calls);
  EXPECT_LE(large.faults, small.faults + 4);
}

TEST_F(Image, ReplacesAFileAsAWhole) {
  const Sums sums = save_filled(image_);
  const Arena arena = value_of(open_image(image_));
  const mode_t before = umask(027);
  {
    // Another one, of other content, at the same path.
    Arena other = make_arena();
    ASSERT_TRUE(publish("other", other.make<int>(1).value()));
    ASSERT_TRUE(other.freeze());
    fs::create_symlink("image", folder_ / "link");
    EXPECT_THAT(open_image(folder_ / "link", {.publish = false}),
                Fails(ErrorCode::address_taken, "has the addresses of arena 'index'"));
    EXPECT_TRUE(save_image(other, image_));
    EXPECT_TRUE(save_image(other, folder_ / "link"));
  }
  umask(before);
  EXPECT_EQ(sum_of(&*find<Node>("nodes").value()), sums.nodes);
  EXPECT_EQ(sum_of(*find<Words>("words").value()), sums.words);
  EXPECT_FALSE(fs::is_symlink(folder_ / "link"));
  EXPECT_EQ(fs::status(image_).permissions(), fs::perms(0640));
  EXPECT_THAT(folder_.names(), UnorderedElementsAre("image", "link"));
  EXPECT_TRUE(open_image(image_));
}

TEST_F(Image, ThatCannotBeReadOrWritten) {
  save_filled(image_);
  fs::permissions(image_, fs::perms::none);
  fs::permissions(folder_.path(), fs::perms(0755));
  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze());
  const auto child = run_in_child([&]() -> std::string {
    if (geteuid() == 0) test::become_nobody();
    const int opened = open_image(image_).error().system_errno;
    const int saved =
        geteuid() == 65534 ? save_image(arena, folder_ / "new").error().system_errno : EACCES;
    return std::to_string(opened) + " " + std::to_string(saved);
  });
  EXPECT_EQ(child.said, std::to_string(EACCES) + " " + std::to_string(EACCES));
}

TEST_F(Image, LeavesNothingOnAFullDisk) {
  if (mount("none", folder_.path().c_str(), "tmpfs", 0, "size=4m") != 0)
    GTEST_SKIP() << "a small file system cannot be mounted: " << std::strerror(errno);
  Arena arena = make_arena();
  const auto words = arena.make_array<std::uint64_t>(1_MiB).value();
  std::iota(words.begin(), words.end(), 1);
  ASSERT_TRUE(arena.freeze());
  const auto saved = save_image(arena, image_);
  const auto names = folder_.names();
  umount(folder_.path().c_str());
  EXPECT_THAT(saved, FailsBy(ENOSPC, "image cannot be written: No space left"));
  EXPECT_THAT(names, IsEmpty());
}

// A page of zeros is a hole in the file, and reading it takes memory of the file system.
TEST_F(Image, OnAFullFileSystemFailsWithoutASignal) {
  if (mount("none", folder_.path().c_str(), "tmpfs", 0, "size=4m") != 0)
    GTEST_SKIP() << "a small file system cannot be mounted: " << std::strerror(errno);
  {
    Arena made = make_arena();
    ASSERT_TRUE(publish("zeros", made.make_array<std::uint64_t>(1_MiB).value()));
    ASSERT_TRUE(made.freeze());
    ASSERT_THAT(save_image(made, image_), Succeeds());
  }
  auto arena = open_image(image_, {.mode = FreezeMode::lenient}).value();
  auto& first =
      const_cast<std::uint64_t&>(find<std::span<const std::uint64_t>>("zeros").value()->front());
  first = 1;
  std::ofstream(folder_ / "full") << std::string(5_MiB, 'x');
  const auto refrozen = arena.refreeze();
  const auto saved = save_image(arena, folder_ / "new");
  umount2(folder_.path().c_str(), MNT_DETACH);
  EXPECT_THAT(refrozen, FailsBy(EFAULT, "its pages cannot be read"));
  EXPECT_THAT(saved, FailsBy(EFAULT, "its pages cannot be read"));
  EXPECT_EQ(first, 1U);
}

TEST_F(Image, IsOpenedByOneOfManyThreads) {
  save_filled(image_);
  std::array<std::optional<Expected<Arena>>, 4> results;
  {
    std::vector<std::jthread> threads;
    for (auto& result : results) threads.emplace_back([&] { result.emplace(open_image(image_)); });
  }
  int opened = 0;
  for (const auto& result : results) {
    opened += result->has_value() ? 1 : 0;
    EXPECT_TRUE(*result || result->error().code == ErrorCode::address_taken)
        << result->error().message;
  }
  EXPECT_EQ(opened, 1);
}

TEST_F(Image, HasTheLongestNameThatThereIs) {
  const std::string name(NAME_MAX, 'n');
  save_filled(folder_ / name);
  EXPECT_THAT(folder_.names(), ElementsAre(name));
}

TEST_F(Image, IsSavedInAFolderThatCannotBeSynced) {
  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze());
  if (geteuid() == 0) ASSERT_EQ(chown(folder_.path().c_str(), 65534, 65534), 0);
  fs::permissions(folder_.path(), fs::perms::owner_write | fs::perms::owner_exec);
  const auto child = run_in_child([&]() -> std::string {
    if (geteuid() == 0) test::become_nobody();
    const auto saved = save_image(arena, image_);
    return saved ? "saved" : saved.error().message;
  });
  fs::permissions(folder_.path(), fs::perms::owner_all);
  EXPECT_EQ(child.said, "saved");
}

ErrorCode error_of(const fs::path& path) { return code_of(open_image(path)); }

TEST_F(Image, RefusesEveryFlippedByteBeforeThePayload) {
  save_filled(image_);
  const ImageBytes bytes(image_);
  const std::uint64_t end = bytes.head().size();
  for (std::uint64_t offset = 0; offset < end; ++offset) {
    bytes.flip(offset);
    ASSERT_THAT(error_of(image_), testing::AnyOf(ErrorCode::bad_image, ErrorCode::unsupported))
        << offset;
    bytes.flip(offset);
  }
  EXPECT_TRUE(open_image(image_));
}

TEST_F(Image, RefusesATruncatedFile) {
  save_filled(image_);
  const auto header = ImageBytes(image_).header();
  const auto bytes = ImageBytes(image_).head();
  const std::uint64_t end = fs::file_size(image_);
  std::ofstream cut(folder_ / "cut", std::ios::binary);
  const ImageBytes view(folder_ / "cut");
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    view.resize(size);
    ASSERT_EQ(error_of(folder_ / "cut"), ErrorCode::bad_image) << size;
    if (size < bytes.size()) view.write(size, bytes[size]);
  }
  for (const std::uint64_t size :
       {header.payload, header.payload + 1, header.payload + 4096, end - 1}) {
    view.resize(size);
    EXPECT_THAT(open_image(folder_ / "cut"), Fails(ErrorCode::bad_image, "is truncated")) << size;
  }
  view.resize(end);
  EXPECT_TRUE(open_image(folder_ / "cut"));
}

TEST_F(Image, RefusesWhatIsNotForThisProgram) {
  save_filled(image_);
  const ImageBytes bytes(image_);
  const auto right = bytes.header();
  auto wrong = right;  // its checksum is of no use where the rest is not understood
  wrong.magic[0] = 'X';
  bytes.write(0, wrong);
  EXPECT_THAT(open_image(image_), Fails(ErrorCode::bad_image, "is not an image"));
  wrong = right;
  wrong.version = 1;
  bytes.write(0, wrong);
  EXPECT_THAT(open_image(image_), Fails(ErrorCode::unsupported, "version 1"));
  wrong = right;
  wrong.parcel_bytes = 300_MiB;  // of a hole
  wrong.payload = 400_MiB;
  bytes.resize(wrong.payload);
  bytes.write(0, wrong);
  EXPECT_THAT(open_image(image_), Fails(ErrorCode::bad_image, "a damaged header"));
  bytes.write(0, right);
  EXPECT_TRUE(open_image(image_));
}

// With a right checksum: made by another program, or to do harm.
TEST_F(Image, RefusesWhatContradictsItself) {
  save_filled(image_);
  const ImageBytes bytes(image_);
  const auto right = bytes.head();
  constexpr std::uint64_t kHuge = ~std::uint64_t{0} - 2_MiB + 1;
  using Description = internal::ArenaCore::Description;
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
      [](auto& arena) { arena.segments.front().file.fd = 1; },
      [](auto& arena) { arena.segments.front().file.fd = -1; },
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
    EXPECT_EQ(error_of(image_), ErrorCode::bad_image) << "change " << i;
    bytes.put(right);
  }
  EXPECT_TRUE(open_image(image_));
}

TEST_F(Image, RefusesANameInUse) {
  save_filled(image_);
  Arena other =
      Arena::create(
          {.name = "other", .capacity = 2_MiB, .address = ImageBytes(image_).header().base + 1_GiB})
          .value();
  ASSERT_TRUE(publish("table", other.make<int>(1).value()));
  EXPECT_THAT(open_image(image_),
              AllOf(Fails(ErrorCode::invalid_argument, "'table' is published already"),
                    Fails(ErrorCode::invalid_argument, "'other'")));
  EXPECT_THAT(find<Node>("nodes"), Fails(ErrorCode::not_published));
  EXPECT_EQ(published().size(), 1U);
  const auto unpublished = open_image(image_, {.publish = false});
  EXPECT_TRUE(unpublished);
  EXPECT_EQ(published().size(), 1U);
}

TEST_F(Image, RefusesWhatIsNoFile) {
  ASSERT_EQ(mkfifo((folder_ / "fifo").c_str(), 0600), 0);
  fs::create_directory(folder_ / "folder");
  fs::create_symlink("nothing", folder_ / "dangling");
  std::ofstream(folder_ / "empty").flush();
  std::ofstream(folder_ / "text") << "no image at all, but a text that is long enough";
  EXPECT_EQ(error_of(folder_ / "fifo"), ErrorCode::invalid_argument);
  EXPECT_EQ(error_of(folder_ / "folder"), ErrorCode::invalid_argument);
  EXPECT_EQ(error_of("/dev/null"), ErrorCode::invalid_argument);
  EXPECT_EQ(error_of(folder_ / "empty"), ErrorCode::bad_image);
  EXPECT_EQ(error_of(folder_ / "text"), ErrorCode::bad_image);
  EXPECT_THAT(open_image(folder_ / "dangling"), FailsBy(ENOENT));
  EXPECT_THAT(open_image(folder_ / "absent"), FailsBy(ENOENT));

  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze());
  for (const fs::path& path : {folder_ / "fifo", folder_ / "folder", fs::path("/dev/null")})
    EXPECT_THAT(save_image(arena, path), Fails(ErrorCode::invalid_argument)) << path;
  EXPECT_THAT(save_image(arena, folder_ / "absent/image"), FailsBy(ENOENT));
  EXPECT_EQ(folder_.names().size(), 5U);
}

using testing::MatchesRegex;

// Past RLIMIT_FSIZE the kernel ends a process by SIGXFSZ.  A new arena, a new generation and an
// image are errors instead.
void set_limit(rlim_t bytes) {
  const rlimit limit = {bytes, RLIM_INFINITY};
  setrlimit(RLIMIT_FSIZE, &limit);
}

template <class T>
std::string outcome(const Expected<T>& result) {
  return result
             ? "ok\n"
             : std::strerror(result.error().system_errno) + (": " + result.error().message) + "\n";
}

TEST(FileSizeLimit, AnArenaBeyondItIsNotMade) {
  EXPECT_EQ(run_in_child([] {
              set_limit(1_MiB);
              return outcome(Arena::create({.name = "big", .capacity = 64_MiB}));
            }).said,
            "File too large: arena 'big': a file of 67108864 bytes, where RLIMIT_FSIZE is 1048576; "
            "raise it (ulimit -f)\n");
}

TEST(FileSizeLimit, AnArenaThatIsThereIsFilledAndFrozenButHasNoNewGeneration) {
  EXPECT_THAT(run_in_child([] {
                Arena empty = make_arena("early");
                set_limit(1_MiB);
                std::memset(empty.allocate(10_MiB), 1, 10_MiB);
                std::string said = outcome(empty.freeze());
                said += outcome(empty.thaw());
                set_limit(RLIM_INFINITY);
                return said + outcome(empty.thaw());
              }).said,
              MatchesRegex("ok\nFile too large: arena 'early': .*raise it \\(ulimit -f\\)\nok\n"));
}

TEST(FileSizeLimit, AnImageBeyondItIsNotSavedAndLeavesTheOldOne) {
  const Folder folder;
  save_filled(folder / "image");
  const auto size = fs::file_size(folder / "image");
  EXPECT_THAT(
      run_in_child([&] {
        Arena arena = make_arena("saved");
        std::memset(arena.allocate(10_MiB), 1, 10_MiB);
        const bool frozen = arena.freeze().has_value();
        set_limit(4_MiB);
        return frozen ? outcome(save_image(arena, folder / "image")) : "not frozen";
      }).said,
      MatchesRegex("File too large: image " + folder.path().string() + "/image: a file of .*\n"));
  EXPECT_THAT(folder.names(), ElementsAre("image"));
  EXPECT_EQ(fs::file_size(folder / "image"), size);
}

}  // namespace
}  // namespace cowshed
