#include <cowshed/share/arena_image.h>
#include <cowshed/share/arena_transfer.h>
#include <cowshed/share/export/parcel.h>
#include <cowshed/share/export/parcel_format.h>
#include <cowshed/share/os/memfd.h>
#include <cowshed/share/process/addresses.h>
#include <cowshed/share/process/tree.h>
#include <cowshed/share/wire/content.h>
#include <cowshed/share/wire/message.h>
#include <cowshed/tests/share/export/image_objects.h>
#include <cowshed/tests/share/share.h>
#include <cowshed/tests/support/folder.h>
#include <cowshed/tests/support/subprocess.h>

namespace cowshed {

using namespace internal;

namespace {

using test::inode_at;
using test::make_nodes;
using test::Node;
using test::read_bytes;
using test::write_bytes;

struct Sockets {
  explicit Sockets(int type = SOCK_STREAM) {
    std::array<int, 2> ends{};
    if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends.data()) != 0)
      throw std::runtime_error("socketpair");
    here = FileDescriptor(ends[0]);
    there = FileDescriptor(ends[1]);
  }

  FileDescriptor here;
  FileDescriptor there;
};

// A forked process at the other end of a socket.
class Peer {
 public:
  template <class Body>  // int(int socket)
  explicit Peer(Body body)
      : child_([&] {
          sockets_.here = FileDescriptor();
          return body(sockets_.there.get());
        }) {
    sockets_.there = FileDescriptor();
  }

  int socket() const { return sockets_.here.get(); }
  int wait() { return child_.wait(); }
  void kill() { child_.signal(SIGKILL); }

 private:
  Sockets sockets_;
  Child child_;
};

// Of arenas and what belongs to them.
std::ptrdiff_t mappings() {
  const auto maps = test::all_mappings();
  return std::count_if(maps.begin(), maps.end(), [](const test::Mapping& mapping) {
    const auto place = mapping.begin >> 30U;
    const bool is_place =
        std::any_of(process_tree::kRanges.begin(), process_tree::kRanges.end(), [&](auto range) {
          return place >= range.first && place < std::uint64_t{range.first} + range.count;
        });
    // ThreadSanitizer maps memory of its own among ours, and leaves arenas 508 GiB.
    return (is_place && !test::kThreadSanitizer) ||
           mapping.name.find("cowshed") != std::string::npos;
  });
}

TEST(ArenaTransfer, TheResultsOfManyWorkersHaveEachItsPlace) {
  constexpr std::uint64_t kWorkers = 6;
  std::vector<Arena> own;
  own.push_back(make_arena(64_MiB, "own"));
  std::deque<Peer> workers;
  for (std::uint64_t rank = 0; rank < kWorkers; ++rank) {
    workers.emplace_back([&, rank](int socket) {
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
    });
    own.push_back(make_arena(64_MiB, "own"));
  }
  std::vector<Arena> results;
  std::vector<std::pair<Ref<Node>, std::uint64_t>> refs;
  for (int result = 0; result < 9; ++result) {
    for (std::uint64_t rank = 0; rank < kWorkers; ++rank) {
      results.push_back(value_of(receive_arena(workers[rank].socket())));
      refs.emplace_back(read_bytes<Ref<Node>>(workers[rank].socket()), 100 + rank);
    }
  }
  for (const auto& [ref, count] : refs) {
    ASSERT_EQ(outcome(ref), "ok");
    EXPECT_EQ(test::sum_of(&*ref), count * (count + 1) / 2);
  }
  for (Peer& worker : workers) EXPECT_EQ(worker.wait(), 0);
}

// What a process claimed and did not leave is free once it is dead.
TEST(ArenaTransfer, PlacesOfTheDeadAreUsedAgain) {
  (void)make_arena(64_MiB, "first");  // makes the tree
  auto& holders = process_tree::shared().holders;
  const auto held_by = [&](pid_t pid) {
    return std::count_if(holders.begin(), holders.end(),
                         [=](const auto& holder) { return static_cast<pid_t>(holder) == pid; });
  };
  Peer child([](int socket) {
    const Arena arena = make_arena(100_GiB, "large");
    write_bytes(socket, getpid());
    return read_bytes<int>(socket);
  });
  const auto pid = read_bytes<pid_t>(child.socket());
  EXPECT_EQ(held_by(pid), 101);
  child.kill();
  child.wait();
  // Once round, in steps that leave no GiB out.
  const std::size_t step = test::kThreadSanitizer ? 50_GiB : 5000_GiB;
  for (int i = 0; i < 12; ++i) {
    const Arena arena = make_arena(step, "step");
    const Arena next = make_arena(step, "next");  // or the first would be used again and again
  }
  EXPECT_LT(held_by(pid), 101);
  EXPECT_LE(held_by(getpid()), 1);  // for small ones
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

  Sockets sockets(SOCK_SEQPACKET);
  test::Subprocess receiver({READER}, [&] { dup2(sockets.there.get(), 0); });
  sockets.there = FileDescriptor();
  ASSERT_TRUE(send_message(sockets.here.get(), launch::MessageKind::adopt, {}, *pack_arenas()));
  ASSERT_TRUE(write_bytes(sockets.here.get(), sent));
  const auto finished = receiver.finish();
  std::ostringstream expected;
  expected << "2 arenas, nodes 50005000 at " << static_cast<const void*>(nodes) << ", words "
           << test::sum_of(words) << ", array 499500";
  EXPECT_THAT(finished.out, HasSubstr(expected.str()));
  EXPECT_THAT(finished.out, HasSubstr("pmr not_spawn_safe, withdrawn released, open not_inherited, "
                                      "wrong wrong_type, by name ok"));
  EXPECT_EQ(finished.exit_status(), 0);

  // Up, from the other program.
  const Arena result = value_of(receive_arena(sockets.here.get()));
  const auto ref = read_bytes<Ref<Node>>(sockets.here.get());
  ASSERT_EQ(outcome(ref), "ok");
  EXPECT_EQ(test::sum_of(&*ref), 500500U);
  EXPECT_THAT(find<test::PmrNumbers>("result pmr"), Fails(ErrorCode::not_spawn_safe));
}

TEST(ArenaTransfer, WhatAForkedChildBuiltHasItsCodeHere) {
  Peer child([](int socket) {
    Arena arena = make_arena(64_MiB, "result");
    const auto ref = publish(*arena.make<test::PmrNumbers>(10, 7));
    return ref && arena.freeze() && send_arena(socket, arena) && write_bytes(socket, *ref) ? 0 : 1;
  });
  const Arena arena = value_of(receive_arena(child.socket()));
  EXPECT_THAT(*read_bytes<Ref<test::PmrNumbers>>(child.socket()), SizeIs(10));
}

// A frozen arena is a patchwork of its generations.
TEST(ArenaTransfer, AllGenerationsArrive) {
  for (const int generations : {2, 7, 12}) {
    Peer child([&](int socket) {
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
    Arena arena = value_of(receive_arena(child.socket()));
    EXPECT_EQ(child.wait(), 0);
    const auto ref = read_bytes<Ref<std::span<const std::uint64_t>>>(child.socket());
    ASSERT_EQ(outcome(ref), "ok");
    EXPECT_EQ(std::accumulate(ref->begin(), ref->end(), std::uint64_t{0}),
              read_bytes<std::uint64_t>(child.socket()));
    EXPECT_EQ(arena.stats().generation, static_cast<std::uint32_t>(generations));
    // And goes on here.
    ASSERT_TRUE(arena.thaw());
    const Node* more = make_nodes(arena, 10);
    ASSERT_TRUE(arena.refreeze());
    EXPECT_EQ(test::sum_of(more), 55U);
  }
}

TEST(ArenaTransfer, AnImageIsSentAsItsFile) {
  const test::Folder folder;
  const std::string path = folder / "image";
  {
    Arena arena = make_arena(64_MiB, "image");
    ASSERT_TRUE(publish("nodes of the image", make_nodes(arena, 100)));
    ASSERT_TRUE(arena.freeze() && save_image(arena, path));
  }
  Peer child([&](int socket) {
    const auto arena = open_image(path);
    return arena && send_arena(socket, *arena) ? 0 : 1;
  });
  EXPECT_EQ(child.wait(), 0);
  const Arena arena = value_of(receive_arena(child.socket()));
  EXPECT_EQ(test::sum_of(&**find<Node>("nodes of the image")), 5050U);
  struct stat status{};
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(inode_at(arena.base()), status.st_ino);
}

TEST(ArenaTransfer, MoreDescriptorsThanAMessageTakes) {
  if (test::kThreadSanitizer)
    GTEST_SKIP() << "a thread may hold 64 locks under it, and fork() holds one for each arena";
  constexpr std::size_t kArenas = 260;
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    Sockets sockets(type);
    const auto child = run_in_child([&] {
      std::vector<Arena> arenas;
      for (std::size_t i = 0; i < kArenas; ++i) {
        arenas.push_back(make_arena(2_MiB, "small"));
        if (!publish(make_nodes(arenas.back(), i + 1)) || !arenas.back().freeze())
          return std::string("not made");
      }
      const auto sent =
          send_message(sockets.there.get(), launch::MessageKind::adopt, {}, *pack_arenas());
      return sent ? "" : sent.error().message;
    });
    ASSERT_EQ(child.said, "");
    auto message = launch::receive_message(sockets.here.get(), MSG_WAITALL, 0);
    ASSERT_TRUE(message && *message);
    const auto arenas = value_of(adopt_arenas(std::move((*message)->content)));
    EXPECT_EQ(arenas.size(), kArenas);
    EXPECT_EQ(published().size(), kArenas);
  }
  EXPECT_EQ(published().size(), 0U);
}

// No descriptor is left.
TEST(ArenaTransfer, WhatIsHereAlreadyIsAddressTaken) {
  Arena arena = make_arena();
  ASSERT_TRUE(arena.freeze());
  const Sockets sockets;
  const std::size_t before = test::open_descriptors();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(send_arena(sockets.there.get(), arena));
    EXPECT_THAT(receive_arena(sockets.here.get()),
                Fails(ErrorCode::address_taken, "of arena 'index' of this process, or is that"));
  }
  EXPECT_EQ(test::open_descriptors(), before);
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
  const FileDescriptor other = make_memfd("other", Sealable::no);
  ASSERT_EQ(ftruncate(other.get(), 4096), 0);
  ASSERT_EQ(mmap(place, 4096, PROT_READ, MAP_SHARED, other.get(), 0), place);
  const auto arena = receive_arena(sockets.here.get());
  munmap(place, 4096);
  EXPECT_THAT(arena, Fails(ErrorCode::address_taken, "/memfd:other (deleted) is mapped at"));
}

// A worker that was forked first is given the index later.
TEST(ArenaTransfer, WhatWasNotInheritedCanBeSent) {
  Arena arena = make_arena();
  const auto before = publish("nodes", make_nodes(arena, 100));
  Peer child([&](int socket) {
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
  Peer child([](int socket) {
    Arena arena = make_arena(64_MiB, "other");
    return publish("first", make_nodes(arena, 1)) && publish("result", make_nodes(arena, 1)) &&
                   arena.freeze() && send_arena(socket, arena)
               ? 0
               : 1;
  });
  const auto before = mappings();
  EXPECT_THAT(receive_arena(child.socket()),
              Fails(ErrorCode::invalid_argument, "'result' is published already, in arena 'own'"));
  EXPECT_EQ(published().size(), 1U);
  EXPECT_EQ(outcome(*ref), "ok");
  EXPECT_EQ(mappings(), before);
}

TEST(ArenaTransfer, OnlyWhatIsFrozenIsSent) {
  Arena arena = make_arena();
  const Sockets sockets;
  EXPECT_THAT(send_arena(sockets.here.get(), arena), Fails(ErrorCode::arena_not_frozen));
  ASSERT_TRUE(arena.freeze() && arena.thaw());
  EXPECT_THAT(send_arena(sockets.here.get(), arena), Fails(ErrorCode::arena_not_frozen));
  ASSERT_TRUE(arena.refreeze());
  EXPECT_TRUE(send_arena(sockets.here.get(), arena));
}

// A process that holds the address of its parent's arena would give it away by its end.
TEST(ArenaTransfer, AnAddressThatALivingProcessHasStaysIts) {
  const Arena open = make_arena(1_GiB, "open");
  const auto place = reinterpret_cast<std::uintptr_t>(open.base()) / 1_GiB;
  const auto range = process_tree::kRanges[test::kThreadSanitizer ? 1 : 0];
  const auto& holder = process_tree::shared().holders.at(
      place - range.first + (test::kThreadSanitizer ? process_tree::kRanges[0].count : 0));
  const std::uint64_t before = holder;
  EXPECT_EQ(test::Child([&] {
              addresses::hold(reinterpret_cast<std::uintptr_t>(open.base()), 1_GiB,
                              addresses::Holder::this_process);
              return 0;
            }).wait(),
            0);
  EXPECT_EQ(holder.load(), before);
}

TEST(ArenaTransfer, AWildWriteIntoTheTreesMemoryStopsNobody) {
  const Arena first = make_arena(64_MiB, "first");
  process_tree::Shared& shared = process_tree::shared();
  for (auto& holder : shared.holders) holder = 1;  // a PID that lives
  for (auto& unit : shared.next_unit) unit = ~0U;
  shared.last_generation = ~0ULL;
  Arena second = make_arena(64_MiB, "second");
  const auto ref = value_of(publish("nodes", make_nodes(second, 10)));
  ASSERT_TRUE(second.freeze());
  EXPECT_EQ(run_in_child([&] { return std::to_string(test::sum_of(&*ref)); }).said, "55");
  Peer child([](int socket) {
    Arena own = make_arena(64_MiB, "own");
    const auto sent = publish("childs", make_nodes(own, 3));
    return sent && own.freeze() && send_arena(socket, own) && write_bytes(socket, *sent) ? 0 : 1;
  });
  const Arena received = value_of(receive_arena(child.socket()));
  EXPECT_EQ(test::sum_of(&*read_bytes<Ref<Node>>(child.socket())), 6U);
}

// Two of the same slot, far apart in time.
TEST(ArenaTransfer, TwoPublicationsOfOneSlotAreBothGood) {
  Arena own = make_arena(64_MiB, "own");
  Peer child([](int socket) {
    const auto parents = read_bytes<Ref<Node>>(socket);
    process_tree::shared().last_generation = process_tree::word_of(
        process_tree::kGeneration, parents.bits().generation() + kMaxPublished - 1);
    Arena arena = make_arena(64_MiB, "result");
    const auto ref = publish("childs", make_nodes(arena, 10));
    return ref && arena.freeze() && send_arena(socket, arena) && write_bytes(socket, *ref) ? 0 : 1;
  });
  const auto parents = *publish("parents", make_nodes(own, 3));
  ASSERT_TRUE(write_bytes(child.socket(), parents));
  std::optional<Arena> arena = receive_arena(child.socket()).value();
  const auto childs = read_bytes<Ref<Node>>(child.socket());
  ASSERT_EQ(childs.bits().slot(), parents.bits().slot());
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

// Descriptors and bytes that may not be what they should be.
class Parcel : public testing::Test {
 public:
  Parcel() {
    (void)publish("nodes", make_nodes(*arena_, 10));
    (void)arena_->freeze();
    Encoder to = Encoder::in_memory();
    (void)pack_arena(*arena_, to);
    parcel_ = to.finish();
    arena_.reset();
  }

  static FileDescriptor memfd_with(std::size_t bytes, int seals) {
    FileDescriptor memfd = make_memfd("test", Sealable::yes);
    EXPECT_EQ(ftruncate(memfd.get(), static_cast<off_t>(bytes)), 0);
    EXPECT_EQ(fcntl(memfd.get(), F_ADD_SEALS, seals), 0);
    return memfd;
  }

  FileDescriptor& file() { return parcel_.descriptors()[1]; }
  const std::string& bytes() const { return parcel_.inline_bytes(); }
  void set_bytes(std::string bytes) {
    parcel_ = Content(std::move(bytes), FileDescriptor(), 0, std::move(parcel_.descriptors()));
  }

  void change_tree() {
    Decoder from(std::as_bytes(std::span(bytes())));
    auto contents = parcel_format::read(from);
    contents.tree ^= 1U;
    Encoder to;
    parcel_format::write(to, contents);
    set_bytes(to.finish().inline_bytes());
  }

  // By a hole.
  void make_long() {
    constexpr std::size_t kBytes = 257_MiB;
    parcel_ = Content({}, memfd_with(kBytes, kSealed), kBytes, std::move(parcel_.descriptors()));
  }

  std::optional<Arena> arena_ = make_arena();
  Content parcel_;
};

TEST_F(Parcel, IsGood) {
  const auto arenas = value_of(adopt_arenas(std::move(parcel_)));
  EXPECT_EQ(test::sum_of(&**find<Node>("nodes")), 55U);
}

TEST_F(Parcel, HasNoBytesThatMayChange) {
  EXPECT_THROW(Content({}, memfd_with(100, F_SEAL_SHRINK), 100, {}), std::runtime_error);
}

struct Damage {
  const char* name;
  void (*plant)(Parcel& parcel);
  ErrorCode code;
  const char* text = "";

  friend void PrintTo(const Damage& damage, std::ostream* to) { *to << damage.name; }
};
class BadParcel : public Parcel, public testing::WithParamInterface<Damage> {};

TEST_P(BadParcel, IsAnErrorAndNothingStays) {
  GetParam().plant(*this);
  const auto before = mappings();
  EXPECT_THAT(adopt_arenas(std::move(parcel_)), Fails(GetParam().code, GetParam().text));
  EXPECT_EQ(mappings(), before);
  EXPECT_EQ(published().size(), 0U);
}

const Damage damages[] = {
    {"AMemfdWithoutSeals", [](Parcel& parcel) { parcel.file() = Parcel::memfd_with(64_MiB, 0); },
     ErrorCode::foreign_descriptor, "'index'"},
    {"AFileThatIsNoMemfd",
     [](Parcel& parcel) { parcel.file() = FileDescriptor(open("/proc/self/exe", O_RDONLY)); },
     ErrorCode::foreign_descriptor},
    {"ASealedMemfdThatIsTooShort",
     [](Parcel& parcel) { parcel.file() = Parcel::memfd_with(4096, kSealed); },
     ErrorCode::foreign_descriptor, "4096 bytes, of which it needs 2097152"},
    {"ASocketForAFile", [](Parcel& parcel) { parcel.file() = std::move(Sockets().here); },
     ErrorCode::foreign_descriptor},
    {"BytesOfSomethingElse", [](Parcel& parcel) { parcel.set_bytes(std::string(100, '\7')); },
     ErrorCode::bad_message},
    {"TooManyBytes", [](Parcel& parcel) { parcel.make_long(); }, ErrorCode::bad_message,
     "too long"},
    {"ADescriptorTooFew", [](Parcel& parcel) { parcel.parcel_.descriptors().pop_back(); },
     ErrorCode::bad_message},
    {"OfAnotherTree",
     [](Parcel& parcel) {
       parcel.arena_ = make_arena("own");
       parcel.change_tree();
     },
     ErrorCode::wrong_process_tree},
    {"ATreeThatIsNone", [](Parcel& parcel) { parcel.change_tree(); },
     ErrorCode::foreign_descriptor},
};
INSTANTIATE_TEST_SUITE_P(Damages, BadParcel, testing::ValuesIn(damages),
                         [](const auto& damage) { return damage.param.name; });

TEST(ReceiveArena, KeepsNoDescriptorOfAnEmptyMessage) {
  const Sockets sockets(SOCK_SEQPACKET);
  const std::size_t before = test::open_descriptors();
  std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message = {};
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* rights = CMSG_FIRSTHDR(&message);
  *rights = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};  // standard input
  ASSERT_EQ(sendmsg(sockets.there.get(), &message, 0), 0);
  EXPECT_THAT(receive_arena(sockets.here.get()), Fails(ErrorCode::bad_message));
  EXPECT_EQ(test::open_descriptors(), before);
}

TEST(ReceiveArena, NeedsOneToBeSent) {
  Sockets closed;
  closed.there = FileDescriptor();
  EXPECT_THAT(receive_arena(closed.here.get()), FailsBy(EPIPE));
  const Sockets sockets;
  ASSERT_TRUE(write_bytes(sockets.there.get(), std::array<char, 100>{}));
  EXPECT_THAT(receive_arena(sockets.here.get()), Fails(ErrorCode::bad_message));
  const Sockets silent(SOCK_STREAM | SOCK_NONBLOCK);
  EXPECT_THAT(receive_arena(silent.here.get()), FailsBy(EAGAIN));
  const FileDescriptor memfd = make_memfd("no socket", Sealable::no);
  EXPECT_THAT(receive_arena(memfd.get()), FailsBy(ENOTSOCK));
}

}  // namespace
}  // namespace cowshed
