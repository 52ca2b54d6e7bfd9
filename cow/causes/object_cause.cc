#include <algorithm>
#include <array>

#include <cowshed/cow/cause_names.h>
#include <cowshed/cow/causes/object_cause.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kWordBytes = sizeof(std::uint64_t);
constexpr unsigned kHalfBits = 32;
constexpr std::uint64_t kMostReferences = 1 << 24;  // that anything but chance makes

// The two halves of a word.  The lower one comes first in memory.
std::uint64_t low(std::uint64_t word) { return word & 0xffffffff; }
std::uint64_t high(std::uint64_t word) { return word >> kHalfBits; }

bool is_pointer(std::optional<std::uint64_t> word) {
  constexpr std::uint64_t kLeast = 0x10000;
  return word && *word % kWordBytes == 0 && *word >= kLeast && *word < arch::kEndOfAddresses;
}

bool is_count(std::uint64_t references) { return references >= 1 && references < kMostReferences; }

std::uint64_t in_word(const ObservedStore& observed) {
  return observed.sample.address % kWordBytes;
}

bool stores_word(const ObservedStore& observed) {
  return observed.store.kind == StoreKind::store && observed.store.width == kWordBytes &&
         in_word(observed) == 0;
}

// The type and the fields of an object as the kernel's part has read it.
std::string_view cause_in_python_object(const ObservedStore& observed) {
  const std::int32_t offset = observed.sample.object_offset;
  constexpr std::int32_t kLinks = -16;
  constexpr std::int32_t kType = 8;
  constexpr std::int32_t kInstructions = 160;  // of a code object, at least
  if (offset < 0) return offset >= kLinks ? kGarbageCollector : "";
  if (offset < kType) return kReferenceCount;
  if (observed.sample.object_type == "code" && offset >= kInstructions) return kAdaptiveInterpreter;
  return "";
}

// A freed block of pymalloc begins with a pointer to the next one of its pool.
bool links_python_block(const ObservedStore& observed) {
  constexpr unsigned kPythonPoolBits = 14;
  constexpr std::uint64_t kBlockAlignment = 16;
  const auto next = observed.after();
  return stores_word(observed) && observed.sample.address % kBlockAlignment == 0 &&
         is_pointer(next) && *next % kBlockAlignment == 0 &&
         (*next ^ observed.sample.address) >> kPythonPoolBits == 0;
}

// The first words of a pool are the number of its blocks in use, and its free blocks.
bool is_python_pool(const ObservedStore& observed) {
  constexpr std::uint64_t kPythonPoolBytes = 16 << 10;
  constexpr std::uint64_t kMostBlocks = kPythonPoolBytes / 16;
  const std::uint64_t offset = observed.sample.address % kPythonPoolBytes;
  if (offset >= 2 * kWordBytes || observed.store.kind == StoreKind::vector) return false;
  const auto distance = -static_cast<std::int64_t>(offset - offset % kWordBytes);
  const std::uint64_t pool = observed.sample.address - offset;
  const auto used = observed.word(distance);
  const auto free = observed.word(distance + 8);
  constexpr std::int64_t kSize = 32;  // of the blocks, with the number of the arena
  const auto size = observed.word(distance + kSize);
  constexpr std::uint64_t kSizes = 32;
  return used && low(*used) <= kMostBlocks && free &&
         (*free == 0 || (*free ^ pool) < kPythonPoolBytes) && size && high(*size) < kSizes;
}

// Where the kernel's part knows the interpreter, it has read the type itself.  Elsewhere the words
// tell.  Since 3.14 the upper 16 bits of a count are flags; the 16 before are 0, unlike a
// pointer's.
bool is_python_object(const ObservedStore& observed, std::int64_t distance) {
  constexpr std::uint64_t kOverflow = 0xffff;
  const auto references = observed.word(distance);
  return observed.sample.python.empty() && references && low(*references) >= 1 &&
         (high(*references) & kOverflow) == 0 && is_pointer(observed.word(distance + 8));
}

// A collection replaces the link before an object by the number of its references.
bool counts_python_references(const ObservedStore& observed) {
  constexpr std::uint64_t kFlags = 7;  // in the link
  const auto link = observed.before();
  const auto references = observed.after();
  return stores_word(observed) && link && is_pointer(*link & ~kFlags) && references &&
         is_count(*references) && is_python_object(observed, 8);
}

std::string_view python_cause(const ObservedStore& observed) {
  constexpr std::uint64_t kObjectAlignment = 16;
  constexpr std::uint64_t kNoHash = ~std::uint64_t{0};
  constexpr std::array<std::int64_t, 4> kHashes = {16, 24, 32, 48};  // in an object
  if (observed.sample.is_in_code) return kAdaptiveInterpreter;
  if (links_python_block(observed)) return kFreeList;
  if (!observed.sample.object_type.empty()) {
    if (const auto cause = cause_in_python_object(observed); !cause.empty()) return cause;
  }
  if (observed.sample.address % kObjectAlignment == 0 && observed.counts() &&
      is_python_object(observed, 0)) {
    return kReferenceCount;
  }
  // The object may begin in the page before, which was not read.
  if (stores_word(observed) && observed.before() == kNoHash &&
      std::ranges::find(kHashes, observed.store.displacement) != kHashes.end()) {
    return kCachedHash;
  }
  if (counts_python_references(observed)) return kGarbageCollector;
  // A counter or an operand of an instruction, which are 2 bytes.
  if (observed.store.width == 2 && observed.store.displacement.value_or(-1) >= 0 &&
      *observed.store.displacement <= 2 &&
      (observed.store.kind == StoreKind::store || observed.store.kind == StoreKind::add)) {
    return kAdaptiveInterpreter;
  }
  return is_python_pool(observed) ? kFreeList : "";
}

// A block of the heap for short-lived arrays and hashes begins with a magic number and its size, of
// 2 bytes each, and a pointer to its object.
bool is_in_transient_block(const ObservedStore& observed) {
  constexpr std::uint64_t kMagic = 0xfeab;
  constexpr unsigned kMagicBits = 16;
  constexpr std::int64_t kFarthest = 128;
  for (std::int64_t distance = 0; distance >= -kFarthest; distance -= 8) {
    const auto word = observed.word(distance);
    if (!word || (*word & 0xffff) != kMagic) continue;
    const auto bytes = static_cast<std::int64_t>((*word >> kMagicBits) & 0xffff);
    return bytes % 8 == 0 && bytes > -distance && is_pointer(observed.word(distance + 8));
  }
  return false;
}

// A slot begins with flags and a pointer to its class.  The lowest 5 bits of the flags are its
// type. A free slot has type 0 and a pointer to the next free one.
std::string_view ruby_cause(const ObservedStore& observed) {
  constexpr std::uint64_t kType = 0x1f;
  constexpr std::uint64_t kAge = 0x60;
  constexpr std::uint64_t kFlagsEnd = std::uint64_t{1} << kHalfBits;
  constexpr std::int64_t kNextOfMarkStack = 500 * 8;  // behind 500 objects
  constexpr std::int64_t kFlagsOfPage = 12;           // what a page of slots remembers
  if (stores_word(observed) && observed.store.displacement == kNextOfMarkStack)
    return kGarbageCollector;
  if (observed.store.kind == StoreKind::modify && observed.store.width == 1 &&
      observed.store.displacement == kFlagsOfPage) {
    return kGarbageCollector;
  }
  if (is_in_transient_block(observed)) return kFreeList;
  const auto flags = observed.word();
  const auto object_class = observed.word(8);
  if (!flags || *flags >= kFlagsEnd) return "";
  const auto after = observed.after();
  if (*flags == 0) {
    const bool is_last = object_class == std::uint64_t{0};
    const bool makes = stores_word(observed) && after && (*after & kType) != 0 &&
                       *after < kFlagsEnd && (is_last || is_pointer(object_class));
    return makes ? kFreeList : "";
  }
  if ((*flags & kType) == 0 || !is_pointer(object_class)) return "";
  if (observed.store.kind != StoreKind::store && observed.store.kind != StoreKind::modify)
    return "";
  if (stores_word(observed) && after && (*after == 0 || ((*after ^ *flags) & ~kAge) == 0))
    return kGarbageCollector;
  return kObjectFlags;
}

// A count of 4 bytes; then 4 bits of type, 6 of flags, and the collector's colour and number.
std::string_view php_cause(const ObservedStore& observed) {
  constexpr std::uint64_t kType = 0xf;
  constexpr std::uint64_t kString = 6;
  constexpr std::uint64_t kConstant = 11;
  constexpr unsigned kCollectorsBits = 10;
  const auto header = observed.word();
  if (!header || observed.store.width != 4 || !is_count(low(*header))) return "";
  const std::uint64_t type = high(*header) & kType;
  if (type < kString || type > kConstant) return "";
  if (in_word(observed) == 0) return observed.counts() ? kReferenceCount : "";
  const auto after = observed.after();
  const bool recolours = after && (*after ^ high(*header)) >> kCollectorsBits != 0 &&
                         ((*after ^ high(*header)) & ((1 << kCollectorsBits) - 1)) == 0;
  return recolours ? kGarbageCollector : "";
}

// A head has a pointer, a count of 4 bytes, flags with a type in the lowest byte, and a value.  The
// flags of a free one are 0xff.  A string that is shared by several heads ends with a count.
std::string_view perl_cause(const ObservedStore& observed) {
  constexpr std::uint64_t kType = 0xff;
  constexpr std::uint64_t kTypes = 17;
  constexpr std::uint64_t kFree = std::uint64_t{0xff} << kHalfBits;
  if (observed.store.width == 1 && observed.store.kind == StoreKind::add && observed.counts())
    return kReferenceCount;
  for (const std::int64_t distance : {-8, 0, 8})
    if (observed.word(distance) == kFree) return kFreeList;
  const auto head = observed.word();
  if (!head || !is_count(low(*head)) || (high(*head) & kType) >= kTypes) return "";
  const auto body = observed.word(-8);
  if (body && *body != 0 && !is_pointer(body)) return "";
  if (in_word(observed) == 0 && observed.store.width == 4 && observed.counts())
    return kReferenceCount;
  return in_word(observed) == 4 && high(*head) != 0 ? kObjectFlags : "";
}

// A header of 64 bits, a pointer to the attributes, and the collector's two links.  Byte 3 of the
// header has the mark and the generation, bytes 4 and 5 count references.
bool is_r_object(const ObservedStore& observed, std::int64_t distance) {
  constexpr std::uint64_t kType = 0x1f;
  constexpr std::uint64_t kTypes = 26;
  constexpr unsigned kUnused = 48;
  const auto header = observed.word(distance);
  if (!header || (*header & kType) >= kTypes || *header >> kUnused != 0) return false;
  return is_pointer(observed.word(distance + 8));
}

std::string_view r_cause(const ObservedStore& observed) {
  if (is_r_object(observed, 0)) {
    if (observed.store.width == 1 && in_word(observed) == 3) return kGarbageCollector;
    if (observed.store.width == 2 && in_word(observed) == 4) return kReferenceCount;
  }
  const bool links = stores_word(observed) && is_pointer(observed.word()) &&
                     is_pointer(observed.after()) &&
                     (is_r_object(observed, -16) || is_r_object(observed, -24));
  return links ? kGarbageCollector : "";
}

}  // namespace

std::optional<std::uint64_t> ObservedStore::word(std::int64_t distance) const {
  const std::uint64_t here = sample.address - sample.address % kWordBytes;
  return sample.around.word(here + static_cast<std::uint64_t>(distance));
}

std::optional<std::uint64_t> ObservedStore::before() const {
  const std::uint64_t offset = sample.address % kWordBytes;
  const auto whole = word();
  if (!whole || store.width == 0 || offset + store.width > kWordBytes) return std::nullopt;
  return (*whole >> (8 * offset)) & (~std::uint64_t{0} >> (8 * (kWordBytes - store.width)));
}

std::optional<std::uint64_t> ObservedStore::after() const {
  if (store.width == 0 || store.width > kWordBytes) return std::nullopt;
  std::optional<std::uint64_t> value = store.constant;
  if (store.source) value = sample[*store.source];
  if (!value) return std::nullopt;
  return *value & (~std::uint64_t{0} >> (8 * (kWordBytes - store.width)));
}

bool ObservedStore::counts() const {
  if (store.kind == StoreKind::add) return store.amount == 1 || store.amount == -1;
  const auto old_value = before();
  const auto new_value = after();
  return store.kind == StoreKind::store && old_value && new_value &&
         (*old_value - *new_value == 1 || *new_value - *old_value == 1);
}

std::string_view object_cause(Language interpreter, const ObservedStore& observed) {
  switch (interpreter) {
    case Language::python:
    case Language::old_python: return python_cause(observed);
    case Language::ruby: return ruby_cause(observed);
    case Language::php: return php_cause(observed);
    case Language::perl: return perl_cause(observed);
    case Language::r: return r_cause(observed);
    case Language::ocaml:
    case Language::other:
    case Language::native: return "";
  }
  return "";
}

bool is_programs_data(Language interpreter, const ObservedStore& observed) {
  if (!observed.word()) return false;
  switch (interpreter) {
    case Language::python:
    case Language::old_python: return !observed.sample.python.empty();
    case Language::ruby:
    case Language::php:
    case Language::perl:
    case Language::r: return !observed.counts();
    case Language::ocaml:
    case Language::other:
    case Language::native: return false;
  }
  return false;
}

std::optional<std::uint64_t> vtable_of_control_block(const ObservedStore& observed) {
  const auto counts = observed.word();
  const auto vtable = observed.word(-8);
  const bool is_block = counts && is_count(low(*counts)) && is_count(high(*counts)) &&
                        is_pointer(vtable) && observed.store.width == 4 && observed.counts();
  return is_block ? vtable : std::nullopt;
}

bool is_control_block(const ObservedStore& observed, std::uint64_t begin, std::uint64_t end) {
  const auto vtable = vtable_of_control_block(observed);
  return vtable && *vtable >= begin && *vtable < end;
}

}  // namespace cowshed::cow
