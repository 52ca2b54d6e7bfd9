#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include <cowshed/tools/cowtop/budget.h>
#include <cowshed/tools/cowtop/text_file.h>

namespace cowshed::cowtop {

using Json = nlohmann::ordered_json;

namespace {

constexpr const char* kSchema = "cowshed.budget/1";
constexpr double kMostBytes = 0x1p60;
constexpr double kMostPercent = 1'000'000;

tl::unexpected<Error> wrong_budget(std::string message) {
  return make_error(ErrorCode::invalid_argument, std::move(message));
}

// A decimal number without a sign or an exponent, cut off from `text`.
std::optional<double> take_number(std::string_view& text) {
  if (text.empty() || text[0] < '0' || text[0] > '9') return std::nullopt;
  double number = 0;
  const auto parsed =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (parsed.ec != std::errc() || !std::isfinite(number)) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(parsed.ptr - text.data()));
  return number;
}

// An error that names the place of the JSON value.
template <class T>
Expected<T> at_key(const std::string& key, Expected<T> value) {
  if (!value) value.error().message = Json(key).dump() + ": " + value.error().message;
  return value;
}

Expected<std::string> file_name_of(const Json& json) {
  if (json.is_string()) {
    if (auto name = json.get<std::string>(); !name.empty()) return name;
  }
  return wrong_budget(json.dump() + " is not the name of a file");
}

Expected<std::uint64_t> size_of(const Json& json) {
  if (json.is_string()) return parse_size(json.get<std::string>());
  if (json.is_number_unsigned()) return parse_size(json.dump());
  return wrong_budget(json.dump() + " is not a size: \"64MiB\", or whole bytes");
}

Expected<double> percentage_of(const Json& json) {
  return json.is_string() ? parse_percentage(json.get<std::string>())
                          : wrong_budget(json.dump() + " is not a percentage: \"5%\"");
}

Expected<Budget::Per> per_of(const Json& json) {
  if (json == "child") return Budget::Per::child;
  if (json == "tree") return Budget::Per::tree;
  return wrong_budget(json.dump() + " is not \"child\" or \"tree\"");
}

Expected<std::vector<Budget::Object>> objects_of(const Json& json) {
  if (!json.is_object()) return wrong_budget("is not an object of names and sizes");
  std::vector<Budget::Object> objects;
  for (const auto& [name, size] : json.items()) {
    if (name.empty()) return wrong_budget("an object's name is empty");
    const auto bytes = at_key(name, size_of(size));
    if (!bytes) return tl::make_unexpected(bytes.error());
    objects.push_back({name, *bytes});
  }
  return objects;
}

// One key of a budget's object.  nullopt: it went into `budget`.
template <class T, class Field>
std::optional<Error> put(Field& field, const std::string& key, Expected<T> value) {
  value = at_key(key, std::move(value));
  if (!value) return value.error();
  field = std::move(*value);
  return std::nullopt;
}

std::optional<Error> put_key(Budget& budget, const std::string& key, const Json& value) {
  if (key == "per") return put(budget.per, key, per_of(value));
  if (key == "max_copied") return put(budget.max_copied_bytes, key, size_of(value));
  if (key == "max_ratio") return put(budget.max_ratio, key, percentage_of(value));
  if (key == "objects") return put(budget.objects, key, objects_of(value));
  if (key == "baseline") return put(budget.baseline, key, file_name_of(value));
  if (key == "max_growth") return put(budget.max_growth, key, percentage_of(value));
  if (key == "schema") {
    if (value == kSchema) return std::nullopt;
    return wrong_budget("\"schema\": " + value.dump() + " is not \"" + kSchema + "\"").value();
  }
  return wrong_budget(Json(key).dump() + ": no such key").value();
}

Expected<Budget> budget_of(const std::string& text) {
  std::vector<std::set<std::string>> keys;
  std::optional<std::string> second;
  const auto look = [&](int /*depth*/, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed).second && !second) {
      second = parsed.dump();
    }
    return true;
  };
  const Json json = Json::parse(text, look, false);
  if (!json.is_object()) return wrong_budget("is not a JSON object");
  if (second) return wrong_budget(*second + ": is there twice");
  if (!json.contains("schema"))
    return wrong_budget(std::string("has no \"schema\": \"") + kSchema + "\"");
  Budget budget;
  for (const auto& [key, value] : json.items()) {
    if (auto error = put_key(budget, key, value)) return tl::make_unexpected(std::move(*error));
  }
  return budget;
}

}  // namespace

Expected<std::uint64_t> parse_size(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, double>, 5> kUnits = {
      {{"", 1}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}}};
  std::string_view rest = text;
  const auto number = take_number(rest);
  const auto unit = std::find_if(kUnits.begin(), kUnits.end(),
                                 [&](const auto& each) { return each.first == rest; });
  const bool is_size = number && unit != kUnits.end();
  const double bytes = is_size ? *number * unit->second : 0;
  const bool is_whole = !rest.empty() || std::floor(bytes) == bytes;
  if (!is_size || !is_whole || bytes > kMostBytes) {
    return wrong_budget("'" + std::string(text) +
                        "' is not a size: whole bytes, or a number with KiB, MiB, GiB or TiB");
  }
  return static_cast<std::uint64_t>(bytes);
}

Expected<double> parse_percentage(std::string_view text) {
  std::string_view rest = text;
  const auto number = take_number(rest);
  if (!number || rest != "%" || *number > kMostPercent) {
    return wrong_budget("'" + std::string(text) + "' is not a percentage as 5%");
  }
  constexpr double kWhole = 100;
  return *number / kWhole;
}

Expected<Budget::Object> parse_object(std::string_view text) {
  const auto separator = text.rfind('=');
  if (separator == std::string_view::npos || separator == 0) {
    return wrong_budget("'" + std::string(text) + "' is not NAME=SIZE");
  }
  const auto bytes = parse_size(text.substr(separator + 1));
  if (!bytes) return tl::make_unexpected(bytes.error());
  return Budget::Object{std::string(text.substr(0, separator)), *bytes};
}

Expected<Budget> read_budget(const std::string& path) {
  const auto text = read_text_file(path);
  if (!text) return tl::make_unexpected(text.error());
  auto budget = budget_of(*text);
  if (!budget) {
    budget.error().message = path + ": " + budget.error().message;
  } else if (!budget->baseline.empty()) {
    budget->baseline = (std::filesystem::path(path).parent_path() / budget->baseline).string();
  }
  return budget;
}

Budget merged(Budget under, const Budget& over) {
  const auto take = [](auto& field, const auto& other) {
    if (other) field = other;
  };
  take(under.per, over.per);
  take(under.max_copied_bytes, over.max_copied_bytes);
  take(under.max_ratio, over.max_ratio);
  take(under.max_growth, over.max_growth);
  if (!over.baseline.empty()) under.baseline = over.baseline;
  for (const Budget::Object& object : over.objects) {
    std::erase_if(under.objects, [&](const auto& each) { return each.name == object.name; });
    under.objects.push_back(object);
  }
  return under;
}

std::string what_is_wrong_with(const Budget& budget) {
  if (budget.baseline.empty() != !budget.max_growth) {
    return budget.max_growth ? "--max-growth: of what? give --baseline FILE"
                             : "--baseline: how much more? give --max-growth";
  }
  if (!budget.max_copied_bytes && !budget.max_ratio && budget.objects.empty() &&
      budget.baseline.empty()) {
    return "no limit: give --max-copied, --max-ratio, --object, --baseline with --max-growth, or a "
           "--budget that has one";
  }
  return {};
}

}  // namespace cowshed::cowtop
