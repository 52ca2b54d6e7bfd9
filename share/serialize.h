#pragma once

#include <algorithm>
#include <cereal/cereal.hpp>
#include <cereal/types/memory.hpp>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <valarray>
#include <vector>

#include <cowshed/base/error.h>
#include <cowshed/base/expected_range.h>
#include <cowshed/share/ref.h>
#include <cowshed/share/transfer_counter.h>
#include <cowshed/share/type_id.h>
#include <cowshed/share/type_tree.h>

// Any C++ object as bytes and back, by cereal (https://uscilab.github.io/cereal), which knows the
// standard's containers and pointers (include <cereal/types/...>) and learns other types from a
// member template:
//
//   struct Rule {
//     std::string pattern;
//     int priority;
//     template <class Archive>
//     void serialize(Archive& archive) { archive(pattern, priority); }
//   };
//
//   auto bytes = cowshed::encode(rules);
//   auto copy = cowshed::decode<std::vector<Rule>>(*bytes);
//
// This header is optional: it alone needs cereal, and the CMake target cowshed::serialize.
//
// The bytes are for processes of this machine (byte order, sizes of types) that have the same
// definition of T.  Objects that several std::shared_ptr lead to are written once.  A Ref<T> goes
// as its 16 bytes.
namespace cowshed {

struct Encoded {
  std::vector<std::byte> bytes;
  std::vector<TypePath> paths;  // what they consist of, largest first
};

namespace internal {

[[noreturn]] void throw_truncated(std::uint64_t wanted, std::uint64_t left);
[[noreturn]] void throw_bad_encoding(const char* what);

// Deeper ones would exhaust the stack: cereal goes down by function calls.
inline constexpr std::size_t kMaxSerializedDepth = 1000;
[[noreturn]] void throw_too_deep();

// The same in every program.
std::uint64_t encoding_id(const std::type_info& type);

Error encode_error(std::string_view type, const std::exception& failure);
Error decode_error(std::string_view type, std::size_t bytes, const std::exception& failure);
// Nothing: it begins as an encoding of the type should.
Expected<void> check_encoding(std::span<const std::byte> bytes, std::uint64_t id,
                              std::string_view type);

// Cereal wraps what it writes; its wrappers are no objects of the user's.
template <class T>
inline constexpr bool kIsObject = !type_name<T>().starts_with("cereal::");

// Of elements that are written as one block, the bytes of each; of others at least one.
template <class T>
inline constexpr std::size_t kLeastElement = 1;
template <class T, class Allocator>
  requires std::is_arithmetic_v<T>
inline constexpr std::size_t kLeastElement<std::vector<T, Allocator>> =
    std::is_same_v<T, bool> ? 1 : sizeof(T);
template <class T, class Traits, class Allocator>
inline constexpr std::size_t kLeastElement<std::basic_string<T, Traits, Allocator>> = sizeof(T);
template <class T>
  requires std::is_arithmetic_v<T>
inline constexpr std::size_t kLeastElement<std::valarray<T>> = sizeof(T);

class SerializeWriter
    : public cereal::OutputArchive<SerializeWriter, cereal::AllowEmptyClassElision> {
 public:
  // `tree` may be null.
  SerializeWriter(std::vector<std::byte>& to, TypeTree* tree)
      : OutputArchive(this), to_(to), tree_(tree) {}

  void write(const void* data, std::size_t size) {
    const auto* bytes = static_cast<const std::byte*>(data);
    to_.insert(to_.end(), bytes, bytes + size);
  }
  template <class T>
  void write_block(const void* data, std::size_t size) {
    if constexpr (!std::is_void_v<T> && sizeof(T) > 1) {
      if (tree_ != nullptr) {
        tree_->add(type_name<T>(), size / sizeof(T), size, to_.size());
      }
    }
    write(data, size);
  }

  // A number takes bytes, and has nothing inside.
  template <class T>
  void begin_number() {
    if (tree_ != nullptr) {
      tree_->enter(type_name<T>(), begins_.empty() ? 0 : to_.size());
    }
  }
  void end_number() {
    if (tree_ != nullptr) {
      tree_->leave(to_.size());
    }
  }
  template <class T>
  void begin() {
    begin_number<T>();
    if (begins_.size() == kMaxSerializedDepth) {
      throw_too_deep();
    }
    begins_.push_back(to_.size());
  }
  // Every object takes a byte at least, so that a reader can tell a count that cannot be.
  void end() {
    if (to_.size() == begins_.back()) {
      to_.push_back({});
    }
    begins_.pop_back();
    end_number();
  }

 private:
  std::vector<std::byte>& to_;
  TypeTree* tree_;
  std::vector<std::size_t> begins_;
};

class SerializeReader
    : public cereal::InputArchive<SerializeReader, cereal::AllowEmptyClassElision> {
  using Base = cereal::InputArchive<SerializeReader, cereal::AllowEmptyClassElision>;

 public:
  explicit SerializeReader(std::span<const std::byte> from) : Base(this), left_(from) {}

  void read(void* to, std::size_t size) {
    if (size > left_.size()) {
      throw_truncated(size, left_.size());
    }
    std::copy_n(left_.data(), size, static_cast<std::byte*>(to));
    left_ = left_.subspan(size);
  }
  // A bool is 0 or 1, and undefined behaviour else.
  void check_bools(const void* bools, std::size_t count) const;
  void check_count(std::uint64_t count) const {
    if (count > left_.size() / least_element_) {
      throw_truncated(count, left_.size());
    }
  }
  std::size_t left() const { return left_.size(); }

  template <class T>
  void begin() {
    if (begins_.size() == kMaxSerializedDepth) {
      throw_too_deep();
    }
    begins_.push_back(left_.size());
    least_element_ = kLeastElement<T>;
  }
  void end() {
    if (left_.size() == begins_.back()) {
      std::byte pad;
      read(&pad, 1);
    }
    begins_.pop_back();
    least_element_ = 1;
  }

  // Cereal casts what an earlier pointer pointed to as the bytes say; with these it must be of the
  // type.
  template <class T>
  void begin_pointer() {
    pointer_type_ = &typeid(T);
  }
  void registerSharedPointer(std::uint32_t id,  // NOLINT(readability-identifier-naming)
                             std::shared_ptr<void> pointer) {
    pointer_types_[id & ~cereal::detail::msb_32bit] = pointer_type_;
    Base::registerSharedPointer(id, std::move(pointer));
  }
  std::shared_ptr<void> getSharedPointer(  // NOLINT(readability-identifier-naming)
      std::uint32_t id) {
    if (id != 0 && (!pointer_types_.contains(id) || *pointer_types_[id] != *pointer_type_)) {
      throw_bad_encoding("a pointer to what is not there");
    }
    return Base::getSharedPointer(id);
  }

 private:
  std::span<const std::byte> left_;
  std::vector<std::size_t> begins_;
  std::size_t least_element_ = 1;
  const std::type_info* pointer_type_ = nullptr;
  std::map<std::uint32_t, const std::type_info*> pointer_types_;
};

// The names that cereal looks for, here and below.

template <class T>
void prologue(SerializeWriter& writer, const T&) {
  if constexpr (std::is_arithmetic_v<T>) {
    writer.begin_number<T>();
  } else if constexpr (kIsObject<T>) {
    writer.begin<T>();
  }
}
template <class T>
void epilogue(SerializeWriter& writer, const T&) {
  if constexpr (std::is_arithmetic_v<T>) {
    writer.end_number();
  } else if constexpr (kIsObject<T>) {
    writer.end();
  }
}
template <class T>
void prologue(SerializeReader& reader, const T&) {
  if constexpr (kIsObject<T> && !std::is_arithmetic_v<T>) {
    reader.begin<T>();
  }
}
template <class T>
void prologue(SerializeReader& reader,
              const cereal::memory_detail::PtrWrapper<std::shared_ptr<T>&>&) {
  reader.begin_pointer<std::remove_const_t<T>>();
}
template <class T>
void epilogue(SerializeReader& reader, const T&) {
  if constexpr (kIsObject<T> && !std::is_arithmetic_v<T>) {
    reader.end();
  }
}

template <class T>
  requires std::is_arithmetic_v<T>
void CEREAL_SAVE_FUNCTION_NAME(SerializeWriter& writer, const T& value) {
  writer.write(&value, sizeof value);
}
template <class T>
  requires std::is_arithmetic_v<T>
void CEREAL_LOAD_FUNCTION_NAME(SerializeReader& reader, T& value) {
  T read{};
  reader.read(&read, sizeof read);
  if constexpr (std::is_same_v<T, bool>) {
    reader.check_bools(&read, 1);
  }
  value = read;
}

template <class T>
void CEREAL_SAVE_FUNCTION_NAME(SerializeWriter& writer, const cereal::BinaryData<T>& data) {
  using Element = std::remove_cvref_t<
      std::remove_all_extents_t<std::remove_pointer_t<std::remove_reference_t<T>>>>;
  writer.write_block<Element>(data.data, static_cast<std::size_t>(data.size));
}
template <class T>
void CEREAL_LOAD_FUNCTION_NAME(SerializeReader& reader, cereal::BinaryData<T>& data) {
  using Element = std::remove_cvref_t<
      std::remove_all_extents_t<std::remove_pointer_t<std::remove_reference_t<T>>>>;
  const auto size = static_cast<std::size_t>(data.size);
  reader.read(data.data, size);
  if constexpr (std::is_same_v<Element, bool>) {
    reader.check_bools(data.data, size);
  }
}

template <class Archive, class T>
  requires std::same_as<Archive, SerializeWriter> || std::same_as<Archive, SerializeReader>
void CEREAL_SERIALIZE_FUNCTION_NAME(Archive& archive, cereal::NameValuePair<T>& named) {
  archive(named.value);
}
template <class T>
void CEREAL_SERIALIZE_FUNCTION_NAME(SerializeWriter& writer, cereal::SizeTag<T>& count) {
  writer.write(&count.size, sizeof count.size);
}
template <class T>
void CEREAL_SERIALIZE_FUNCTION_NAME(SerializeReader& reader, cereal::SizeTag<T>& count) {
  reader.read(&count.size, sizeof count.size);
  reader.check_count(static_cast<std::uint64_t>(count.size));
}

template <class T>
void CEREAL_SAVE_FUNCTION_NAME(SerializeWriter& writer, const Ref<T>& ref) {
  writer.write(&ref, sizeof ref);
}
template <class T>
void CEREAL_LOAD_FUNCTION_NAME(SerializeReader& reader, Ref<T>& ref) {
  RefBits bits;
  reader.read(&bits, sizeof bits);
  ref = Ref<T>(bits);
}

template <class T>
Expected<void> encode_into(std::vector<std::byte>& bytes, const T& object, TypeTree* tree) {
  try {
    const std::uint64_t id = encoding_id(typeid(T));
    SerializeWriter writer(bytes, tree);
    writer.write(&id, sizeof id);
    writer(object);
    writer.serializeDeferments();
    return {};
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& failure) {
    return tl::make_unexpected(encode_error(type_name<T>(), failure));
  }
}

}  // namespace internal

// The object as bytes.  Thread-safe as reading it is.  Throws std::bad_alloc, and what a
// serialize() of the user's throws if it is no std::exception.  Errors: invalid_argument (nested
// deeper than 1,000 objects, or what cereal or a serialize() says, such as a polymorphic type that
// is not registered).
template <class T>
ExpectedRange<std::vector<std::byte>> encode(const T& object) {
  std::vector<std::byte> bytes;
  return internal::encode_into(bytes, object, nullptr).map([&] { return std::move(bytes); });
}

// The same, and what it consists of; slower by some 10 ns for each object.
template <class T>
Expected<Encoded> encode_counted(const T& object) {
  Encoded encoded;
  internal::TypeTree tree;
  return internal::encode_into(encoded.bytes, object, &tree).map([&] {
    encoded.paths = tree.paths();
    return std::move(encoded);
  });
}

// The object that was encoded.  Whatever the bytes are, it reads nothing but them, and allocates in
// proportion to their number: at most sizeof(element) and what the container adds for each byte.
// What the elements mean is for the types' own serialize() to check.  Errors: wrong_type (another
// was encoded), bad_encoding (the bytes are damaged, too few, or too many).
template <std::default_initializable T>
ExpectedValue<T> decode(std::span<const std::byte> bytes) {
  const std::uint64_t id = internal::encoding_id(typeid(T));
  if (auto right = internal::check_encoding(bytes, id, type_name<T>()); !right) {
    return tl::make_unexpected(std::move(right.error()));
  }
  try {
    T object{};
    internal::SerializeReader reader(bytes.subspan(sizeof id));
    reader(object);
    reader.serializeDeferments();
    if (reader.left() != 0) {
      internal::throw_bad_encoding("bytes are left over");
    }
    return object;
  } catch (const std::exception& failure) {  // bad_alloc and length_error: counts that cannot be
    return tl::make_unexpected(internal::decode_error(type_name<T>(), bytes.size(), failure));
  }
}

}  // namespace cowshed

CEREAL_REGISTER_ARCHIVE(cowshed::internal::SerializeWriter)
CEREAL_REGISTER_ARCHIVE(cowshed::internal::SerializeReader)
CEREAL_SETUP_ARCHIVE_TRAITS(cowshed::internal::SerializeReader, cowshed::internal::SerializeWriter)
