#include <algorithm>
#include <array>
#include <charconv>
#include <utility>

#include <cowshed/tools/cowtop/recording/json_fields.h>
#include <cowshed/tools/cowtop/recording/untrusted_json.h>

namespace cowshed::cowtop {
namespace {

constexpr std::size_t kMostFields = 256;  // of an object: a lookup takes time with their number

[[noreturn]] void throw_too_many_fields() {
  throw JsonFieldError("an object with more fields than any that cowtop writes");
}

// The index that a path's last part is; parent.at() has checked it, or it is the array's size.
std::ptrdiff_t index_of(const std::string& part) {
  std::ptrdiff_t index = 0;
  std::from_chars(part.data(), part.data() + part.size(), index);
  return index;
}

void add(Json& parent, const std::string& last, Json& value) {
  if (!parent.is_array()) {
    // operator[] takes any other value for an object.
    if (!parent.is_object()) throw JsonFieldError("a path in a patch leads nowhere");
    parent[last] = std::move(value);
    if (parent.size() > kMostFields) throw_too_many_fields();
  } else if (last == "-" || last == std::to_string(parent.size())) {
    parent.push_back(std::move(value));
  } else {
    (void)parent.at(Json::json_pointer("/" + last));
    parent.insert(parent.begin() + index_of(last), std::move(value));
  }
}

}  // namespace

void throw_too_large() {
  throw JsonFieldError(
      "it would take more than 2 GiB of memory, as none of cowtop's does (copy it again, or record "
      "anew)");
}

std::size_t weight_of(std::string_view json) {
  constexpr std::size_t kValue = 64;
  constexpr std::size_t kProcess = 1024;
  constexpr std::size_t kProcessDepth = 6;  // at most, in a patch; a stack's frames lie deeper
  std::size_t weight = json.size();
  std::size_t depth = 0;
  std::array<std::size_t, kMostDepth + 1> fields{};
  bool is_text = false;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (is_text) {
      if (c == '"') is_text = false;
      if (c == '\\') ++i;
    } else if (c == '"') {
      is_text = true;
    } else if (c == ',' || c == ':') {
      weight += kValue;
      if (c == ':' && ++fields.at(depth) > kMostFields) throw_too_many_fields();
    } else if (c == '{' || c == '[') {
      if (++depth > kMostDepth) throw JsonFieldError("deeper than any that cowtop writes");
      fields.at(depth) = 0;
      weight += c == '{' && depth <= kProcessDepth ? kProcess : kValue;
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return weight;
}

Json parse_untrusted(const std::string& json) {
  if (weight_of(json) > kMostWeight) throw_too_large();
  return Json::parse(json);
}

void apply(Json& document, Json& operation) {
  const auto& kind = operation.at("op").get_ref<const std::string&>();
  // A few copy or move operations could make a huge document.
  if (kind != "add" && kind != "replace" && kind != "remove")
    throw JsonFieldError("'" + kind + "' in a patch");
  const auto& text = operation.at("path").get_ref<const std::string&>();
  if (static_cast<std::size_t>(std::ranges::count(text, '/')) > kMostDepth)
    throw JsonFieldError("a path in a patch is deeper than any that cowtop writes");
  const Json::json_pointer path(text);
  if (path.empty()) throw JsonFieldError("a patch of the whole document");
  if (kind == "replace") {
    document.at(path) = std::move(operation.at("value"));
    return;
  }
  Json& parent = document.at(path.parent_pointer());
  if (kind == "add") return add(parent, path.back(), operation.at("value"));
  (void)document.at(path);
  if (parent.is_array()) parent.erase(parent.begin() + index_of(path.back()));
  else parent.erase(path.back());
}

}  // namespace cowshed::cowtop
