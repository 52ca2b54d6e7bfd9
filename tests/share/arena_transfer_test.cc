#include <memory_resource>
#include <sys/socket.h>

#include <cowshed/share/address_range.h>
#include <cowshed/share/arena_transfer.h>
#include <cowshed/share/content.h>
#include <cowshed/share/image.h>
#include <cowshed/share/memfd.h>
#include <cowshed/share/parcel.h>
#include <cowshed/share/parcel_format.h>
#include <cowshed/share/process_tree.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/worker_message.h>
#include <cowshed/tests/support/child.h>
#include <cowshed/tests/support/scale.h>
#include <cowshed/tests/support/test.h>

#include "../support/arena_receiver.h"
#include "../support/subprocess.h"
#include "make_arena.h"

#ifdef __SANITIZE_THREAD__
constexpr bool kThreadSanitizer = true;  // leaves arenas 508 GiB
#else
constexpr bool kThreadSanitizer = false;
#endif
#ifdef __SANITIZE_ADDRESS__
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = kThreadSanitizer;
#endif

namespace cowshed {
namespace {

using test::make_arena;
using test::Node;
using test::read_bytes;
using test::write_bytes;

struct Sockets {
  explicit Sockets(int type = SOCK_STREAM) {
    std::array<int, 2> ends{};
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends.data()) != 0)
      throw std::runtime_error("socketpair");
    here = Descriptor(ends[0]);
    there = Descriptor(ends[1]);
  }

  Descriptor here;
  Descriptor there;
};

const Node* make_nodes(Arena& arena, std::uint64_t count) {
  const Node* last = nullptr;
  for (std::uint64_t i = 1; i <= count; ++i) last = arena.make<Node>(Node{last, i}).value();
  return last;
}

template <class T>
std::string outcome(const Ref<T>& ref) {
  const auto object = ref.get();
  return object ? "ok" : std::string(to_string(object.error().code));
}

// A forked process at the other end of a socket.
class Child {
 public:
  template <class Body>  // int(int socket)
  explicit Child(Body body)
      : child_([&] {
          sockets_.here = Descriptor();
          return body(sockets_.there.get());
        }) {
    sockets_.there = Descriptor();
  }

  int socket() const { return sockets_.here.get(); }
  int wait() { return child_.wait(); }
  void kill_now() {
    child_.signal(SIGKILL);
    child_.wait();
  }

 private:
  Sockets sockets_;
  test::Child child_;
};

const MapsEntry* mapping_at(const std::vector<MapsEntry>& maps, const void* address) {
  const auto value = reinterpret_cast<std::uintptr_t>(address);
  for (const auto& entry : maps)
    if (value >= entry.begin && value < entry.end) return &entry;
  return nullptr;
}

std::uint64_t inode_at(const void* address) {
  const auto maps = read_maps();
  const MapsEntry* entry = mapping_at(maps, address);
  return entry == nullptr ? 0 : entry->inode;
}

// Of arenas and what belongs to them.
std::ptrdiff_t mappings() {
  const auto maps = read_maps();
  return std::count_if(maps.begin(), maps.end(), [](const MapsEntry& entry) {
    const bool is_place =
        std::any_of(process_tree::kRanges.begin(), process_tree::kRanges.end(), [&](auto range) {
          return entry.begin >> 30U >= range.first &&
                 entry.begin >> 30U < std::uint64_t{range.first} + range.count;
        });
    // ThreadSanitizer maps memory of its own among ours.
    return (is_place && !kThreadSanitizer) || entry.name.find("cowshed") != std::string::npos;
  });
}

std::size_t shared_resident_bytes() {
  std::ifstream file("/proc/self/status");
  std::size_t kib = 0;
  for (std::string line; std::getline(file, line);)
    std::sscanf(line.c_str(), "RssShmem: %zu", &kib);
  return kib * 1024;
}

long page_faults() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}

// A large object: the list of these is what a worker found.
struct Block {
  const Block* next;
  std::uint64_t value;
  std::array<std::byte, 64_KiB - 16> data;
};

struct Result {
  Ref<Block> blocks;
  const Block* address;
  std::uint64_t inode;
  std::uint64_t sum;
};

// The first of the reports that this library is for: 2 GB of results.
TEST(ArenaTransfer, AResultIsUsedInPlaceAfterItsWorkerHasEnded) {
  const std::size_t bytes = test::little_or(64_MiB, 2_GiB);
  Child worker([&](int socket) {
    Arena arena = make_arena(4_GiB, "result");
    const Block* last = nullptr;
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < bytes / sizeof(Block); ++i) {
      auto* block = static_cast<Block*>(arena.allocate(sizeof(Block)));
      block->next = last;
      block->value = i;
      block->data.back() = std::byte{42};
      last = block;
      sum += i;
    }
    const auto ref = publish("blocks", last);
    const bool sent = ref && arena.freeze() && send_arena(socket, arena) &&
                      write_bytes(socket, Result{*ref, last, inode_at(last), sum});
    return sent ? 0 : 1;
  });
  EXPECT_EQ(worker.wait(), 0);

  const std::size_t resident = shared_resident_bytes();
  std::optional<Arena> arena = receive_arena(worker.socket()).value();
  const auto result = read_bytes<Result>(worker.socket());
  EXPECT_EQ(result.blocks.try_get(), result.address);
  EXPECT_EQ(inode_at(result.address), result.inode);  // the worker's own pages
  EXPECT_EQ(find<Block>("blocks"), result.blocks);

  const long faults = page_faults();
  std::uint64_t sum = 0;
  std::size_t count = 0;
  for (const Block* block = &*result.blocks; block != nullptr; block = block->next) {
    sum += block->value + (block->data.back() == std::byte{42} ? 0 : 1);
    ++count;
  }
  EXPECT_EQ(sum, result.sum);
  EXPECT_EQ(count, bytes / sizeof(Block));
  // The kernel maps what is there, 64 KiB or 2 MiB at a time; a copy would be a fault a page.
  if (!kThreadSanitizer)  // which has faults of its own
    EXPECT_LT(page_faults() - faults, static_cast<long>(3 * count + 1000));
  EXPECT_EQ(arena->private_bytes(), 0U);
  EXPECT_EQ(published().front().publisher == getpid(), false);

  arena.reset();
  EXPECT_EQ(outcome(result.blocks), "released");
  EXPECT_LE(shared_resident_bytes(), resident + 4_MiB);
  for (const auto& entry : read_maps()) EXPECT_NE(entry.inode, result.inode) << entry.name;
}

TEST(ArenaTransfer, TheResultsOfManyWorkersHaveEachItsPlace) {
  constexpr std::uint64_t kWorkers = 6;
  std::vector<Arena> own;
  own.push_back(make_arena(64_MiB, "own"));
  std::vector<std::unique_ptr<Child>> workers;
  for (std::uint64_t rank = 0; rank < kWorkers; ++rank) {
    workers.push_back(std::make_unique<Child>([&, rank](int socket) {
      // Small ones, which share a GiB, and one that has some for itself; three rounds of each.
      for (int round = 0; round < 3; ++round) {
        for (const std::size_t capacity : {4_MiB, 64_MiB, 3_GiB}) {
          Arena arena = make_arena(capacity, "result " + std::to_string(rank));
          const auto ref = publish(make_nodes(arena, 100 + rank));
          if (!ref || !arena.freeze() || !send_arena(socket, arena) || !write_bytes(socket, *ref))
            return 1;
        }
      }
      return 0;
    }));
    own.push_back(make_arena(64_MiB, "own"));
  }
  std::vector<Arena> results;
  std::vector<std::pair<Ref<Node>, std::uint64_t>> refs;
  for (int result = 0; result < 9; ++result) {
    for (std::uint64_t rank = 0; rank < kWorkers; ++rank) {
      auto arena = receive_arena(workers[rank]->socket());
      ASSERT_TRUE(arena) << arena.error().message;
      results.push_back(std::move(*arena));
      refs.emplace_back(read_bytes<Ref<Node>>(workers[rank]->socket()), 100 + rank);
    }
  }
  for (const auto& [ref, count] : refs) {
    ASSERT_EQ(outcome(ref), "ok");
    EXPECT_EQ(test::sum_of(&*ref), count * (count + 1) / 2);
  }
  for (auto& worker : workers) EXPECT_EQ(worker->wait(), 0);
}

// What a process claimed and did not leave is free once it is dead.
TEST(ArenaTransfer, PlacesOfTheDeadAreUsedAgain) {
  (void)make_arena(64_MiB, "first");  // makes the tree
  auto& holders = process_tree::shared().holders;
  const auto held_by = [&](pid_t pid) {
    return std::count_if(holders.begin(), holders.end(),
                         [=](const auto& holder) { return static_cast<pid_t>(holder) == pid; });
  };
  Child child([](int socket) {
    const Arena arena = make_arena(100_GiB, "large");
    write_bytes(socket, getpid());
    return read_bytes<int>(socket);
  });
  const auto pid = read_bytes<pid_t>(child.socket());
  EXPECT_EQ(held_by(pid), 101);
  child.kill_now();
  // Once round, in steps that leave no GiB out.
  const std::size_t step = kThreadSanitizer ? 50_GiB : 5000_GiB;
  for (int i = 0; i < 12; ++i) {
    const Arena arena = make_arena(step, "step");
    const Arena next = make_arena(step, "next");  // or the first would be used again and again
  }
  EXPECT_LT(held_by(pid), 101);
  EXPECT_LE(held_by(getpid()), 1);  // for small ones
}

Sockets start_receiver(std::optional<test::Subprocess>& receiver) {
  Sockets sockets(SOCK_SEQPACKET);
  receiver.emplace(std::vector<std::string>{ARENA_RECEIVER}, [&] { dup2(sockets.there.get(), 0); });
  sockets.there = Descriptor();
  return sockets;
}

TEST(ArenaTransfer, AnotherProgramHasTheSameObjectsAndHandsItsOwnUp) {
  Arena arena = make_arena();
  Arena open = make_arena(64_MiB, "open");
  Arena lenient = make_arena(64_MiB, "lenient");
  const Node* nodes = make_nodes(arena, 10000);
  auto& words = **arena.make<test::Words>();
  {
    const UseArena use(arena);
    for (std::uint64_t i = 0; i < 1000; ++i)
      words.emplace(test::Text(i % 40, 'x') + test::Text(std::to_string(i)), i);
  }
  auto numbers = *lenient.make_array<std::uint64_t>(1000);
  std::iota(numbers.begin(), numbers.end(), 0);
  test::Sent sent;
  sent.withdrawn = *publish(nodes);
  ASSERT_TRUE(withdraw(sent.withdrawn));
  sent.nodes = *publish("nodes", nodes);
  sent.words = *publish("words", &words);
  sent.array = *publish(std::span<const std::uint64_t>(numbers));
  sent.pmr = *publish("pmr", *arena.make<test::PmrNumbers>(3, 4));
  sent.open = *publish("open", make_nodes(open, 1));
  std::memcpy(static_cast<void*>(&sent.wrong), &sent.nodes, sizeof sent.wrong);
  ASSERT_TRUE(arena.freeze());
  ASSERT_TRUE(lenient.freeze(FreezeMode::lenient));

  std::optional<test::Subprocess> receiver;
  const Sockets sockets = start_receiver(receiver);
  ASSERT_TRUE(send_message(sockets.here.get(), launch::MessageKind::adopt, {}, *pack_arenas()));
  ASSERT_TRUE(write_bytes(sockets.here.get(), sent));
  const auto finished = receiver->finish();
  char expected[256];
  std::snprintf(expected, sizeof expected,
                "2 arenas, nodes 50005000 at %p, words %lu, array 499500",
                static_cast<const void*>(nodes), test::sum_of(words));
  EXPECT_THAT(finished.out, HasSubstr(expected));
  EXPECT_THAT(finished.out, HasSubstr("pmr not_spawn_safe, withdrawn released, open not_inherited, "
                                      "wrong wrong_type, by name ok"));
  EXPECT_EQ(finished.exit_status(), 0);

  // Up, from the other program.
  const auto result = receive_arena(sockets.here.get());
  ASSERT_TRUE(result) << result.error().message;
  const auto ref = read_bytes<Ref<Node>>(sockets.here.get());
  ASSERT_EQ(outcome(ref), "ok");
  EXPECT_EQ(test::sum_of(&*ref), 500500U);
  const auto pmr = find<test::PmrNumbers>("result pmr");
  ASSERT_FALSE(pmr);
  EXPECT_EQ(pmr.error().code, ErrorCode::not_spawn_safe);
}

TEST(ArenaTransfer, WhatAForkedChildBuiltHasItsCodeHere) {
  Child child([](int socket) {
    Arena arena = make_arena(64_MiB, "result");
    const auto ref = publish(*arena.make<test::PmrNumbers>(10, 7));
    return ref && arena.freeze() && send_arena(socket, arena) && write_bytes(socket, *ref) ? 0 : 1;
  });
  const auto arena = receive_arena(child.socket());
  ASSERT_TRUE(arena) << arena.error().message;
  EXPECT_THAT(*read_bytes<Ref<test::PmrNumbers>>(child.socket()), SizeIs(10));
}

// A frozen arena is a patchwork of its generations.
TEST(ArenaTransfer, AllGenerationsArrive) {
  for (const int generations : {2, 7, 12}) {
    Child child([&](int socket) {
      Arena arena = make_arena(256_MiB, "index");
      auto numbers = *arena.make_array<std::uint64_t>(2_MiB);  // 16 MiB
      bool right = arena.freeze(FreezeMode::lenient).has_value();
      for (int i = 1; right && i < generations; ++i) {
        for (int range = 0; range < 8; range += i)
          numbers[static_cast<std::size_t>(range) * 2_MiB / 8] = static_cast<std::uint64_t>(i);
        right = arena.thaw() && make_nodes(arena, 1000) != nullptr && arena.refreeze();
      }
      const auto ref = publish(std::span<const std::uint64_t>(numbers));
      const std::uint64_t sum = std::accumulate(numbers.begin(), numbers.end(), std::uint64_t{0});
      return right && send_arena(socket, arena) && write_bytes(socket, *ref) &&
                     write_bytes(socket, sum)
                 ? 0
                 : 1;
    });
    auto arena = receive_arena(child.socket());
    ASSERT_TRUE(arena) << arena.error().message;
    EXPECT_EQ(child.wait(), 0);
    const auto ref = read_bytes<Ref<std::span<const std::uint64_t>>>(child.socket());
    ASSERT_EQ(outcome(ref), "ok");
    EXPECT_EQ(std::accumulate(ref->begin(), ref->end(), std::uint64_t{0}),
              read_bytes<std::uint64_t>(child.socket()));
    EXPECT_EQ(arena->stats().generation, static_cast<std::uint32_t>(generations));
    // And goes on here.
    ASSERT_TRUE(arena->thaw());
    const Node* more = make_nodes(*arena, 10);
    ASSERT_TRUE(arena->refreeze());
    EXPECT_EQ(test::sum_of(more), 55U);
  }
}

TEST(ArenaTransfer, AnImageIsSentAsItsFile) {
  const std::string path = testing::TempDir() + "arena_transfer." + std::to_string(getpid());
  {
    Arena arena = make_arena(64_MiB, "image");
    ASSERT_TRUE(publish("nodes of the image", make_nodes(arena, 100)));
    ASSERT_TRUE(arena.freeze());
    ASSERT_TRUE(save_image(arena, path));
  }
  {
    Child child([&](int socket) {
      const auto arena = open_image(path);
      return arena && send_arena(socket, *arena) ? 0 : 1;
    });
    EXPECT_EQ(child.wait(), 0);
    const auto arena = receive_arena(child.socket());
    ASSERT_TRUE(arena) << arena.error().message;
    EXPECT_EQ(test::sum_of(&**find<Node>("nodes of the image")), 5050U);
    struct stat status{};
    ASSERT_EQ(stat(path.c_str(), &status), 0);
    EXPECT_EQ(inode_at(arena->base()), status.st_ino);
  }
  unlink(path.c_str());
}

TEST(ArenaTransfer, MoreDescriptorsThanAMessageTakes) {
  if (kThreadSanitizer)
    GTEST_SKIP() << "a thread may hold 64 locks under it, and fork() holds one for each arena";
  constexpr std::size_t kArenas = 260;
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    Sockets sockets(type);
    const auto child = test::run_in_child([&] {
      std::vector<Arena> arenas;
      for (std::size_t i = 0; i < kArenas; ++i) {
        arenas.push_back(make_arena(2_MiB, "small"));
        if (!publish(make_nodes(arenas.back(), i + 1)) ||
            !arenas.back().freeze({.mode = FreezeMode::strict})) {
          return std::string("not made");
        }
      }
      const auto sent =
          send_message(sockets.there.get(), launch::MessageKind::adopt, {}, *pack_arenas());
      return sent ? "" : sent.error().message;
    });
    ASSERT_EQ(child.said, "");
    auto message = launch::receive_message(sockets.here.get(), MSG_WAITALL, 0);
    ASSERT_TRUE(message && *message);
    const auto arenas = adopt_arenas(std::move((*message)->content));
    ASSERT_TRUE(arenas) << arenas.error().message;
    EXPECT_EQ(arenas->size(), kArenas);
    EXPECT_EQ(published().size(), kArenas);
  }
  EXPECT_EQ(published().size(), 0U);
}

TEST(ArenaTransfer, WhatIsHereAlreadyIsAddressTaken) {
  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze());
  const Sockets sockets;
  ASSERT_TRUE(send_arena(sockets.there.get(), arena));
  const auto again = receive_arena(sockets.here.get());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::address_taken);
  EXPECT_THAT(again.error().message, HasSubstr("of arena 'index' of this process, or is that"));
}

TEST(ArenaTransfer, WhatElseIsThereIsNamed) {
  Sockets sockets;
  void* place = nullptr;
  {
    Arena arena = make_arena();
    place = arena.base();
    ASSERT_TRUE(arena.freeze());
    ASSERT_TRUE(send_arena(sockets.there.get(), arena));
  }
  const Descriptor other = make_memfd("other", Sealable::no);
  ASSERT_EQ(ftruncate(other.get(), 4096), 0);
  ASSERT_EQ(mmap(place, 4096, PROT_READ, MAP_SHARED, other.get(), 0), place);
  const auto arena = receive_arena(sockets.here.get());
  munmap(place, 4096);
  ASSERT_FALSE(arena);
  EXPECT_EQ(arena.error().code, ErrorCode::address_taken);
  EXPECT_THAT(arena.error().message, HasSubstr("/memfd:other (deleted) is mapped at"));
}

// A worker that was forked first is given the index later.
TEST(ArenaTransfer, WhatWasNotInheritedCanBeSent) {
  Arena arena = make_arena();
  const auto before = publish("nodes", make_nodes(arena, 100));
  Child child([&](int socket) {
    const std::string first = outcome(*before);
    const auto received = receive_arena(socket);
    const auto later = read_bytes<Ref<Node>>(socket);
    const bool right = received && first == "not_inherited" && test::sum_of(&**before) == 5050 &&
                       test::sum_of(&*later) == 55 && find<Node>("nodes") == *before &&
                       publish(later.try_get()) && *received->private_bytes() == 0;
    return right ? 0 : 1;
  });
  const auto later = publish(make_nodes(arena, 10));
  ASSERT_TRUE(arena.freeze());
  ASSERT_TRUE(send_arena(child.socket(), arena));
  ASSERT_TRUE(write_bytes(child.socket(), *later));
  EXPECT_EQ(child.wait(), 0);
}

TEST(ArenaTransfer, ANameInUseIsRefusedAndNothingStays) {
  Arena own = make_arena(64_MiB, "own");
  const auto ref = publish("result", make_nodes(own, 1));
  Child child([](int socket) {
    Arena arena = make_arena(64_MiB, "other");
    (void)withdraw(*find<Node>("result"));
    return publish("first", make_nodes(arena, 1)) && publish("result", make_nodes(arena, 1)) &&
                   arena.freeze() && send_arena(socket, arena)
               ? 0
               : 1;
  });
  const auto before = mappings();
  const auto arena = receive_arena(child.socket());
  ASSERT_FALSE(arena);
  EXPECT_EQ(arena.error().code, ErrorCode::invalid_argument);
  EXPECT_THAT(arena.error().message, HasSubstr("'result' is published already, in arena 'own'"));
  EXPECT_EQ(published().size(), 1U);
  EXPECT_EQ(outcome(*ref), "ok");
  EXPECT_EQ(mappings(), before);
}

TEST(ArenaTransfer, OnlyWhatIsFrozenIsSent) {
  Arena arena = make_arena();
  const Sockets sockets;
  EXPECT_EQ(send_arena(sockets.here.get(), arena).error().code, ErrorCode::arena_not_frozen);
  ASSERT_TRUE(arena.freeze() && arena.thaw());
  EXPECT_EQ(send_arena(sockets.here.get(), arena).error().code, ErrorCode::arena_not_frozen);
  ASSERT_TRUE(arena.refreeze());
  EXPECT_TRUE(send_arena(sockets.here.get(), arena));
}

// Two of the same slot, far apart in time.
TEST(ArenaTransfer, TwoPublicationsOfOneSlotAreBothGood) {
  Arena own = make_arena(64_MiB, "own");
  Child child([](int socket) {
    const auto parents = read_bytes<Ref<Node>>(socket);
    process_tree::shared().last_generation = process_tree::word_of(
        process_tree::kGeneration, parents.bits().generation + internal::kMaxPublished - 1);
    Arena arena = make_arena(64_MiB, "result");
    const auto ref = publish("childs", make_nodes(arena, 10));
    return ref && arena.freeze() && send_arena(socket, arena) && write_bytes(socket, *ref) ? 0 : 1;
  });
  const auto parents = *publish("parents", make_nodes(own, 3));
  ASSERT_TRUE(write_bytes(child.socket(), parents));
  std::optional<Arena> arena = receive_arena(child.socket()).value();
  const auto childs = read_bytes<Ref<Node>>(child.socket());
  ASSERT_EQ(childs.bits().slot, parents.bits().slot);
  EXPECT_EQ(test::sum_of(&*parents), 6U);
  EXPECT_EQ(test::sum_of(&*childs), 55U);
  EXPECT_EQ(*find<Node>("childs"), childs);
  EXPECT_EQ(*find<Node>("parents"), parents);
  ASSERT_TRUE(withdraw(parents));
  EXPECT_EQ(outcome(parents), "released");
  EXPECT_EQ(outcome(childs), "ok");
  arena.reset();
  EXPECT_EQ(outcome(childs), "released");
}

// Descriptors and bytes that are not what they should be.
class BadParcel : public testing::Test {
 protected:
  BadParcel() {
    (void)publish("nodes", make_nodes(*arena_, 10));
    (void)arena_->freeze();
    Encoder to = Encoder::in_memory();
    (void)pack_arena(*arena_, to);
    parcel_ = to.finish();
    arena_.reset();
  }

  Error error_of_adopting() {
    const auto before = mappings();
    const auto adopted = adopt_arenas(std::move(parcel_));
    EXPECT_EQ(mappings(), before);
    EXPECT_EQ(published().size(), 0U);
    return adopted ? Error{ErrorCode::invalid_argument, 0, "adopted"} : adopted.error();
  }

  static Descriptor memfd_with(std::span<const std::byte> bytes, int seals) {
    Descriptor memfd = make_memfd("test", Sealable::yes);
    EXPECT_EQ(write(memfd.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    EXPECT_EQ(fcntl(memfd.get(), F_ADD_SEALS, seals), 0);
    return memfd;
  }

  Descriptor& file() { return parcel_.descriptors()[1]; }
  const std::string& bytes() const { return parcel_.inline_bytes(); }
  void set_bytes(std::string bytes) {
    parcel_ =
        internal::Content(std::move(bytes), Descriptor(), 0, std::move(parcel_.descriptors()));
  }

  static parcel_format::Contents read(const std::string& bytes) {
    Decoder from(std::as_bytes(std::span(bytes)));
    return parcel_format::read(from);
  }

  void change_tree() {
    auto contents = read(bytes());
    contents.tree ^= 1U;
    Encoder to;
    parcel_format::write(to, contents);
    set_bytes(to.finish().inline_bytes());
  }

  std::optional<Arena> arena_ = make_arena();
  internal::Content parcel_;
};

TEST_F(BadParcel, IsGoodAtFirst) {
  const auto arenas = adopt_arenas(std::move(parcel_));
  ASSERT_TRUE(arenas) << arenas.error().message;
  EXPECT_EQ(test::sum_of(&**find<Node>("nodes")), 55U);
}

TEST_F(BadParcel, AMemfdWithoutSeals) {
  Descriptor memfd = make_memfd("test", Sealable::yes);
  ASSERT_EQ(ftruncate(memfd.get(), 64_MiB), 0);
  file() = std::move(memfd);
  const Error error = error_of_adopting();
  EXPECT_EQ(error.code, ErrorCode::foreign_descriptor);
  EXPECT_THAT(error.message, HasSubstr("'index'"));
}

TEST_F(BadParcel, AFileThatIsNoMemfd) {
  file() = Descriptor(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(error_of_adopting().code, ErrorCode::foreign_descriptor);
}

TEST_F(BadParcel, ASealedMemfdThatIsTooShort) {
  file() = memfd_with(std::vector<std::byte>(4096), kSealed);
  const Error error = error_of_adopting();
  EXPECT_EQ(error.code, ErrorCode::foreign_descriptor);
  EXPECT_THAT(error.message, HasSubstr("4096 bytes, of which it needs 2097152"));
}

TEST_F(BadParcel, ASocketForAFile) {
  Sockets sockets;
  file() = std::move(sockets.here);
  EXPECT_EQ(error_of_adopting().code, ErrorCode::foreign_descriptor);
}

TEST_F(BadParcel, BytesThatMayChange) {
  const std::vector<std::byte> some(100);
  EXPECT_THROW(internal::Content({}, memfd_with(some, F_SEAL_SHRINK), some.size(), {}),
               std::runtime_error);
}

TEST_F(BadParcel, BytesOfSomethingElse) {
  set_bytes(std::string(100, '\7'));
  EXPECT_EQ(error_of_adopting().code, ErrorCode::bad_message);
}

TEST_F(BadParcel, ADescriptorTooFew) {
  parcel_.descriptors().pop_back();
  EXPECT_EQ(error_of_adopting().code, ErrorCode::bad_message);
}

// What is read of it, if anything, may be believed.
TEST_F(BadParcel, AnyByteThatIsWrong) {
  const std::string good = bytes();
  int refused = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (const char bit : {'\x01', '\x10', '\x80'}) {
      std::string damaged = good;
      damaged[at] = static_cast<char>(damaged[at] ^ bit);
      try {
        for (const auto& [arena, objects] : read(damaged).arenas) {
          EXPECT_TRUE(arena.used <= arena.capacity && arena.begin + arena.capacity > arena.begin);
          for (const auto& object : objects)
            EXPECT_LE(object.address + object.bytes, arena.begin + arena.used);
        }
      } catch (const std::runtime_error&) {
        ++refused;
      }
    }
    EXPECT_THROW((void)read(good.substr(0, at)), std::runtime_error);
  }
  EXPECT_GT(refused, 100);
}

TEST_F(BadParcel, OfAnotherTree) {
  const Arena own = make_arena(64_MiB, "own");
  change_tree();
  const Error error = error_of_adopting();
  EXPECT_EQ(error.code, ErrorCode::wrong_process_tree);
}

TEST_F(BadParcel, ATreeThatIsNone) {
  change_tree();
  EXPECT_EQ(error_of_adopting().code, ErrorCode::foreign_descriptor);
}

TEST(ReceiveArena, NeedsOneToBeSent) {
  {
    Sockets sockets;
    sockets.there = Descriptor();
    const auto arena = receive_arena(sockets.here.get());
    ASSERT_FALSE(arena);
    EXPECT_EQ(arena.error().system_errno, EPIPE);
  }
  {
    const Sockets sockets;
    ASSERT_TRUE(write_bytes(sockets.there.get(), std::array<char, 100>{}));
    EXPECT_EQ(receive_arena(sockets.here.get()).error().code, ErrorCode::bad_message);
  }
  {
    const Sockets sockets(SOCK_STREAM | SOCK_NONBLOCK);
    EXPECT_EQ(receive_arena(sockets.here.get()).error().system_errno, EAGAIN);
  }
  {
    std::array<int, 2> ends{};
    ASSERT_EQ(pipe(ends.data()), 0);
    EXPECT_EQ(receive_arena(ends[0]).error().system_errno, ENOTSOCK);
    close(ends[0]);
    close(ends[1]);
  }
}

// No descriptor is left, whatever goes wrong.
TEST(ReceiveArena, LeavesNoDescriptorBehind) {
  const auto descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze());
  const Sockets sockets;
  const auto before = descriptors();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(send_arena(sockets.there.get(), arena));
    EXPECT_FALSE(receive_arena(sockets.here.get()));
  }
  EXPECT_EQ(descriptors(), before);
}

}  // namespace
}  // namespace cowshed
