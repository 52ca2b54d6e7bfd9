#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/causes/object_cause.h>
#include <cowshed/tests/support/test.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kObject = 0x7f00'0000'0440;
constexpr std::uint64_t kPointer = 0x7f00'1234'5670;

// A store to an object at kObject, whose words are `object`.
class Write {
 public:
  Write(std::vector<std::uint64_t> object, std::uint64_t offset, StoreInstruction store)
      : store_(std::move(store)) {
    constexpr std::uint64_t kLine = MemoryAround::kLineBytes;
    sample_.address = kObject + offset;
    sample_.around.begin = sample_.address / kLine * kLine - kLine;
    sample_.around.is_readable.fill(true);
    for (std::size_t i = 0; i < object.size(); ++i)
      sample_.around.words.at((kObject - sample_.around.begin) / 8 + i) = object[i];
  }
  std::string cause_in(Language interpreter) const {
    return std::string(object_cause(interpreter, {sample_, store_}));
  }
  bool is_control_block(std::uint64_t begin, std::uint64_t end) const {
    return cow::is_control_block({sample_, store_}, begin, end);
  }
  bool is_programs_data(Language interpreter) const {
    return cow::is_programs_data(interpreter, {sample_, store_});
  }
  CopySample& sample() { return sample_; }

 private:
  CopySample sample_;
  StoreInstruction store_;
};

StoreInstruction adds(std::int64_t amount, unsigned width) {
  StoreInstruction store;
  store.kind = StoreKind::add;
  store.width = width;
  store.amount = amount;
  return store;
}

StoreInstruction stores(std::uint64_t value, unsigned width) {
  StoreInstruction store;
  store.kind = StoreKind::store;
  store.width = width;
  store.constant = value;
  return store;
}

TEST(ObjectCause, APlainStoreOfACountThatGrowsByOne) {
  const std::vector<std::uint64_t> list = {3, kPointer, 10};
  EXPECT_EQ(Write(list, 0, stores(4, 4)).cause_in(Language::python), kReferenceCount);
  EXPECT_EQ(Write(list, 0, stores(2, 4)).cause_in(Language::python), kReferenceCount);
  EXPECT_EQ(Write(list, 0, stores(9, 4)).cause_in(Language::python), "");
  EXPECT_EQ(Write({3, 17}, 0, stores(4, 4)).cause_in(Language::python), "") << "of no type";
  EXPECT_EQ(Write({kPointer, kPointer}, 0, stores(kPointer + 1, 8)).cause_in(Language::python), "")
      << "pointers in a row";
  EXPECT_EQ(Write(list, 0, stores(4, 4)).cause_in(Language::native), "");
}

TEST(ObjectCause, WhatTheKernelsPartHasSeenOfAPythonObject) {
  const auto cause_at = [](const std::string& type, std::int32_t offset) {
    Write write({}, 0, stores(7, 4));
    write.sample().object_type = type;
    write.sample().object_offset = offset;
    return write.cause_in(Language::python);
  };
  EXPECT_EQ(cause_at("str", 0), kReferenceCount);
  EXPECT_EQ(cause_at("dict", -8), kGarbageCollector);
  EXPECT_EQ(cause_at("code", 200), kAdaptiveInterpreter);
  EXPECT_EQ(cause_at("app.Row", 40), "") << "a field";
}

TEST(ObjectCause, AHashThatWasNotKnown) {
  StoreInstruction store = stores(0x1234'5678, 8);
  store.displacement = 24;
  EXPECT_EQ(Write({~0ULL}, 0, store).cause_in(Language::python), kCachedHash);
  EXPECT_EQ(Write({0}, 0, store).cause_in(Language::python), "");
}

TEST(ObjectCause, RubysSlots) {
  constexpr std::uint64_t kString = 5;
  constexpr std::uint64_t kOld = kString | 0x20;
  const std::vector<std::uint64_t> slot = {kString, kPointer};
  EXPECT_EQ(Write(slot, 0, stores(kOld, 8)).cause_in(Language::ruby), kGarbageCollector);
  EXPECT_EQ(Write(slot, 0, stores(0, 8)).cause_in(Language::ruby), kGarbageCollector)
      << "it is swept";
  EXPECT_EQ(Write(slot, 0, stores(kString | 0x800, 8)).cause_in(Language::ruby), kObjectFlags);
  EXPECT_EQ(Write({0, kPointer}, 0, stores(kString, 8)).cause_in(Language::ruby), kFreeList);
  EXPECT_EQ(Write({kString, 1}, 0, stores(kOld, 8)).cause_in(Language::ruby), "");
}

TEST(ObjectCause, CountsOfPhpAndPerl) {
  constexpr std::uint64_t kPhpArray = 7ULL << 32;
  EXPECT_EQ(Write({kPhpArray | 1}, 0, adds(1, 4)).cause_in(Language::php), kReferenceCount);
  EXPECT_EQ(Write({1}, 0, adds(1, 4)).cause_in(Language::php), "") << "a number";
  constexpr std::uint64_t kPerlString = 3ULL << 32;
  EXPECT_EQ(Write({kPointer, kPerlString | 1}, 8, adds(1, 4)).cause_in(Language::perl),
            kReferenceCount);
  EXPECT_EQ(Write({kPointer | 1, kPerlString | 1}, 8, adds(1, 4)).cause_in(Language::perl), "");
}

TEST(ObjectCause, HeadersOfR) {
  const std::vector<std::uint64_t> vector = {0x1'0000'000d, kPointer, kPointer, kPointer};
  EXPECT_EQ(Write(vector, 3, stores(1, 1)).cause_in(Language::r), kGarbageCollector);
  EXPECT_EQ(Write(vector, 4, stores(2, 2)).cause_in(Language::r), kReferenceCount);
  EXPECT_EQ(Write(vector, 16, stores(kPointer + 64, 8)).cause_in(Language::r), kGarbageCollector);
}

TEST(ObjectCause, AControlBlockHasAVtableOfItsBinaryAndTwoCounts) {
  const std::vector<std::uint64_t> block = {kPointer, 1ULL << 32 | 2};
  EXPECT_TRUE(Write(block, 8, adds(1, 4)).is_control_block(kPointer, kPointer + 8));
  EXPECT_FALSE(Write(block, 8, adds(1, 4)).is_control_block(kPointer + 8, kPointer + 16));
  EXPECT_FALSE(Write(block, 8, adds(8, 4)).is_control_block(kPointer, kPointer + 8));
  EXPECT_FALSE(Write({kPointer, 2}, 8, adds(1, 4)).is_control_block(kPointer, kPointer + 8));
}

TEST(ObjectCause, WhereNoObjectShowsOneTheProgramsDataIsWritten) {
  const std::vector<std::uint64_t> bytes = {0, 0};
  const auto is_data = [&](Language interpreter, const StoreInstruction& store) {
    return Write(bytes, 8, store).is_programs_data(interpreter);
  };
  EXPECT_TRUE(is_data(Language::php, stores(7, 8)));
  EXPECT_FALSE(is_data(Language::php, adds(1, 4))) << "it may count references";
  EXPECT_FALSE(is_data(Language::other, stores(7, 8)));
  EXPECT_FALSE(is_data(Language::python, stores(7, 8))) << "of an unknown interpreter";
  Write known(bytes, 8, stores(7, 8));
  known.sample().python.emplace_back();
  EXPECT_TRUE(known.is_programs_data(Language::python));
  known.sample().around.is_readable.fill(false);
  EXPECT_FALSE(known.is_programs_data(Language::python));
}

}  // namespace
}  // namespace cowshed::cow
