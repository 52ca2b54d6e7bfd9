#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <cowshed/cow/copy_profile.h>

// Structs as JSON objects.  A struct's fields are listed once, in a function describe(io, Type<S>)
// beside the struct, where argument-dependent lookup finds it.  `io` is a FieldWriter, a
// FieldReader or another class with the same functions.
namespace cowshed::cowtop {

using Json = nlohmann::ordered_json;

template <class T>
struct Type {};

// Lists members of `Struct` that have the same name in JSON.
#define COWSHED_JSON_FIELD(name) io.field(#name, &Struct::name);
#define COWSHED_JSON_FIELDS(...) \
  NLOHMANN_JSON_EXPAND(NLOHMANN_JSON_PASTE(COWSHED_JSON_FIELD, __VA_ARGS__))
// Defines describe() for a struct that has only such members.
#define COWSHED_JSON_STRUCT(Name, ...)                                   \
  static void describe(auto& io, cowshed::cowtop::Type<Name> /*type*/) { \
    using Struct = Name;                                                 \
    COWSHED_JSON_FIELDS(__VA_ARGS__)                                     \
  }

// A member of a struct that is an optional part of `T`; null where there is no such part.
template <class T, class Part, class M>
class PartMember {
 public:
  using Value = M;
  PartMember(std::optional<Part> T::* part, M Part::* member) : part_(part), member_(member) {}
  const M* get(const T& object) const {
    return object.*part_ ? &((*(object.*part_)).*member_) : nullptr;
  }
  void set(T& object, std::optional<M> value) const {
    auto& part = object.*part_;
    if (value) (part ? *part : part.emplace()).*member_ = std::move(*value);
  }

 private:
  std::optional<Part> T::* part_;
  M Part::* member_;
};

// The value of a field; nullptr for null.
template <class T, class M>
const M* value_of(const T& object, M T::* member) {
  return &(object.*member);
}
template <class T, class Member>
const typename Member::Value* value_of(const T& object, const Member& member) {
  return member.get(object);
}

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

// Text in JSON, by the functions name_of() and from_name() of the type.
template <class T>
concept Named = std::is_enum_v<T> || std::is_same_v<T, cow::NewMemoryCause>;

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

// Whether to write fields that are computed from others.  Reports have them, recordings do not.
enum class Derived : std::uint8_t { with, without };

template <class T>
Json json_of(const T& value, Derived derived);

template <class T>
class FieldWriter {
 public:
  FieldWriter(Json& object, const T& value, Derived derived)
      : object_(object), value_(value), derived_(derived) {}

  template <class Member>
  void field(const char* name, const Member& member) {
    const auto* value = value_of(value_, member);
    object_[name] = value != nullptr ? json_of(*value, derived_) : Json(nullptr);
  }
  // The field is absent where the condition does not hold.
  template <class Condition, class Member>
  void field_if(const Condition& condition, const char* name, const Member& member) {
    if (condition(value_)) field(name, member);
  }
  template <class Function>
  void derived(const char* name, const Function& function) {
    if (derived_ == Derived::with) object_[name] = json_of(std::invoke(function, value_), derived_);
  }
  template <class Condition>
  void derived_flag_if(const Condition& condition, const char* name) {
    if (derived_ == Derived::with && condition(value_)) object_[name] = true;
  }

 private:
  Json& object_;
  const T& value_;
  Derived derived_;
};

template <class T>
Json json_of(const T& value, Derived derived) {
  if constexpr (IsOptional<T>::value) {
    return value ? json_of(*value, derived) : Json(nullptr);
  } else if constexpr (IsVector<T>::value) {
    Json array = Json::array();
    for (const auto& each : value) array.push_back(json_of(each, derived));
    return array;
  } else if constexpr (std::is_same_v<T, cow::Frames>) {
    return json_of(value.all(), derived);
  } else if constexpr (Named<T>) {
    return name_of(value);
  } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
    return value;
  } else {
    Json object = Json::object();
    FieldWriter<T> io(object, value, derived);
    describe(io, Type<T>{});
    return object;
  }
}

// what() begins with the path of the field.
class JsonFieldError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void throw_not(const std::string& path, const char* wanted) {
  throw JsonFieldError(path + ": is not " + wanted);
}

template <class T>
void read_integer(const Json& json, const std::string& path, T& value) {
  constexpr auto kLeast = std::numeric_limits<T>::min();
  constexpr auto kMost = std::numeric_limits<T>::max();
  if (json.is_number_unsigned()) {
    const auto number = json.get<std::uint64_t>();
    if (number > static_cast<std::uint64_t>(kMost)) throw_not(path, "as small as it should be");
    value = static_cast<T>(number);
  } else if (json.is_number_integer() && std::is_signed_v<T>) {
    const auto number = json.get<std::int64_t>();
    if (number < static_cast<std::int64_t>(kLeast)) throw_not(path, "as large as it should be");
    value = static_cast<T>(number);
  } else {
    throw_not(path, std::is_signed_v<T> ? "a whole number" : "a whole number of 0 or more");
  }
}

template <class T>
void read_struct(const Json& json, const std::string& path, T& value);

// Does not convert between types: throws JsonFieldError, for example for a number in place of a
// text, or for a number that does not fit.
template <class T>
void read_json(const Json& json, const std::string& path, T& value) {
  if constexpr (IsOptional<T>::value) {
    if (json.is_null()) return value.reset();
    typename T::value_type read{};
    read_json(json, path, read);
    value = std::move(read);
  } else if constexpr (IsVector<T>::value) {
    if (!json.is_array()) throw_not(path, "an array");
    value.clear();
    for (const auto& each : json) {
      const std::string element = path + "/" + std::to_string(value.size());
      read_json(each, element, value.emplace_back());
    }
  } else if constexpr (std::is_same_v<T, cow::Frames>) {
    std::vector<cow::Frame> frames;
    read_json(json, path, frames);
    value = std::move(frames);
  } else if constexpr (Named<T>) {
    std::string name;
    read_json(json, path, name);
    if (!from_name(name, value)) throw_not(path, "one of the known names");
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!json.is_boolean()) throw_not(path, "true or false");
    value = json.get<bool>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!json.is_string()) throw_not(path, "text");
    value = json.get<std::string>();
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!json.is_number()) throw_not(path, "a number");
    value = json.get<T>();
  } else if constexpr (std::is_integral_v<T>) {
    read_integer(json, path, value);
  } else {
    read_struct(json, path, value);
  }
}

// A count may be so large that sums of very many of them still fit.
constexpr std::uint64_t most_of(std::string_view name) {
  if (name == "address" || name == "begin" || name == "end" || name.ends_with("_ns"))
    return UINT64_MAX;
  const bool is_pages = name.find("pages") != name.npos || name.find("copies") != name.npos;
  return std::uint64_t{1} << (is_pages ? 44U : 53U);
}

// Leaves `value` unchanged if the field is absent, because an older version did not write it.
template <class T>
void read_field(const Json& object, const std::string& path, const char* name, T& value) {
  if (!object.is_object()) throw_not(path, "an object");
  const auto found = object.find(name);
  if (found == object.end()) return;
  read_json(*found, path + "/" + name, value);
  if constexpr (std::is_same_v<T, std::uint64_t> ||
                std::is_same_v<T, std::optional<std::uint64_t>>) {
    if (value > most_of(name)) throw_not(path + "/" + name, "as small as it should be");
  }
}

template <class T>
class FieldReader {
 public:
  FieldReader(const Json& object, const std::string& path, T& value)
      : object_(object), path_(path), value_(value) {}

  template <class M>
  void field(const char* name, M T::* member) {
    read_field(object_, path_, name, value_.*member);
  }
  template <class Member>
  void field(const char* name, const Member& member) {
    std::optional<typename Member::Value> value;
    read_field(object_, path_, name, value);
    member.set(value_, std::move(value));
  }
  template <class Condition, class Member>
  void field_if(const Condition& /*condition*/, const char* name, const Member& member) {
    field(name, member);
  }
  template <class Function>
  void derived(const char* /*name*/, const Function& /*function*/) {}
  template <class Condition>
  void derived_flag_if(const Condition& /*condition*/, const char* /*name*/) {}

 private:
  const Json& object_;
  const std::string& path_;
  T& value_;
};

template <class T>
void read_struct(const Json& json, const std::string& path, T& value) {
  FieldReader<T> io(json, path, value);
  describe(io, Type<T>{});
}

}  // namespace cowshed::cowtop
