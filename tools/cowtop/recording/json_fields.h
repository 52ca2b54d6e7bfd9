#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

// One list of a struct's fields for both directions: describe(io, value), where `io` is a
// FieldWriter or a FieldReader and `value` is an Io::Ref<T>.
namespace cowshed::cowtop {

using Json = nlohmann::ordered_json;

// What JSON holds is not what it should be: what() begins with the path to it.
class JsonFieldError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};
template <class T>
struct IsVector : std::false_type {};
template <class T>
struct IsVector<std::vector<T>> : std::true_type {};

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

class FieldWriter {
 public:
  template <class T>
  using Ref = const T&;
  static constexpr bool kReads = false;

  // Without `derived` fields it is shorter, and the same for whoever reads it back.
  enum class Derived : std::uint8_t { with, without };
  FieldWriter(Json& object, Derived derived) : object_(object), derived_(derived) {}

  template <class T>
  void field(const char* name, const T& value) {
    object_[name] = json_of(value);
  }
  // Null where there is none.
  template <class T>
  void field_if(const char* name, const T* value) {
    object_[name] = value != nullptr ? json_of(*value) : Json(nullptr);
  }
  // Computed from other fields: written for whoever reads the text, never read.
  template <class T>
  void derived(const char* name, const T& value) {
    if (derived_ == Derived::with) object_[name] = json_of(value);
  }
  template <class T>
  Json json_of(const T& value) const {
    if constexpr (IsOptional<T>::value) {
      return value ? json_of(*value) : Json(nullptr);
    } else if constexpr (IsVector<T>::value) {
      Json array = Json::array();
      for (const auto& each : value) array.push_back(json_of(each));
      return array;
    } else if constexpr (std::is_enum_v<T>) {
      return name_of(value);
    } else if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, std::string>) {
      return value;
    } else {
      Json object = Json::object();
      FieldWriter io(object, derived_);
      describe(io, value);
      return object;
    }
  }

 private:
  Json& object_;
  Derived derived_;
};

// Strict in what it takes: a number where there should be text, or one that does not fit, throws
// JsonFieldError.  A field that is not there leaves its value as it was: an older writer had none.
class FieldReader {
 public:
  template <class T>
  using Ref = T&;
  static constexpr bool kReads = true;

  FieldReader(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
    if (!object.is_object()) wrong(path_, "an object");
  }

  template <class T>
  void field(const char* name, T& value) {
    const auto found = object_.find(name);
    if (found != object_.end()) read(*found, path_ + "/" + name, value);
  }
  template <class T>
  void derived(const char* /*name*/, const T& /*value*/) {}

  template <class T>
  static void read(const Json& json, const std::string& path, T& value) {
    if constexpr (IsOptional<T>::value) {
      value.reset();
      if (!json.is_null()) read(json, path, value.emplace());
    } else if constexpr (IsVector<T>::value) {
      if (!json.is_array()) wrong(path, "an array");
      value.clear();
      for (const auto& each : json) {
        const std::string element = path + "/" + std::to_string(value.size());
        read(each, element, value.emplace_back());
      }
    } else if constexpr (std::is_enum_v<T>) {
      std::string name;
      read(json, path, name);
      if (!from_name(name, value)) wrong(path, "one of the known names");
    } else if constexpr (std::is_same_v<T, bool>) {
      if (!json.is_boolean()) wrong(path, "true or false");
      value = json.get<bool>();
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (!json.is_string()) wrong(path, "text");
      value = json.get<std::string>();
    } else if constexpr (std::is_floating_point_v<T>) {
      if (!json.is_number()) wrong(path, "a number");
      value = json.get<T>();
    } else if constexpr (std::is_integral_v<T>) {
      read_integer(json, path, value);
    } else {
      FieldReader io(json, path);
      describe(io, value);
    }
  }

 private:
  [[noreturn]] static void wrong(const std::string& path, const char* wanted) {
    throw JsonFieldError(path + ": is not " + wanted);
  }
  template <class T>
  static void read_integer(const Json& json, const std::string& path, T& value) {
    constexpr auto kLeast = std::numeric_limits<T>::min();
    constexpr auto kMost = std::numeric_limits<T>::max();
    if (json.is_number_unsigned()) {
      const auto number = json.get<std::uint64_t>();
      if (number > static_cast<std::uint64_t>(kMost)) wrong(path, "as small as it should be");
      value = static_cast<T>(number);
    } else if (json.is_number_integer() && std::is_signed_v<T>) {
      const auto number = json.get<std::int64_t>();
      if (number < static_cast<std::int64_t>(kLeast)) wrong(path, "as large as it should be");
      value = static_cast<T>(number);
    } else {
      wrong(path, std::is_signed_v<T> ? "a whole number" : "a whole number of 0 or more");
    }
  }

  const Json& object_;
  std::string path_;
};

}  // namespace cowshed::cowtop
