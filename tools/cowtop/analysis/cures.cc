#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <fmt/format.h>
#include <initializer_list>
#include <map>
#include <string_view>

#include <cowshed/cow/cause_names.h>
#include <cowshed/tools/cowtop/analysis/advice.h>
#include <cowshed/tools/cowtop/analysis/cures.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

// Collections make objects old, which later ones then do not mark.
constexpr const char* kWarmUpRuby = R"(module CowtopCure
  def _fork
    unless $cowtop_is_warm
      $cowtop_is_warm = true
      if Process.respond_to?(:warmup)
        Process.warmup
      else
        4.times { GC.start }
        GC.compact if GC.respond_to?(:compact)
      end
    end
    super
  end
end
Process.singleton_class.prepend(CowtopCure)
)";

// What a measurement shows; without one, all that one may show.
class Evidence {
 public:
  Evidence() = default;
  Evidence(const cow::Measurement& measurement, const Summary& summary, int threads)
      : is_sampled_(measurement.sampled && !summary.causes.empty()),
        summary_(&summary),
        threads_(threads) {}

  // Whether much was copied for one of the causes; true also if causes are not known.
  bool has(std::initializer_list<std::string_view> causes) const {
    if (summary_ == nullptr) return true;
    if (summary_->sharers == 0 || summary_->copied_bytes < kLeastBytes) return false;
    std::uint64_t bytes = 0;
    for (const Share& each : summary_->causes)
      if (std::ranges::find(causes, each.name) != causes.end()) bytes += each.bytes;
    return !is_sampled_ || is_much(bytes, summary_->copied_bytes);
  }
  bool relocates() const {
    return summary_ == nullptr ||
           is_much(summary_->relocated_bytes, summary_->copied_bytes + summary_->file_bytes);
  }
  // Memory that children allocated themselves is much of all.
  bool has_own_memory() const {
    return summary_ == nullptr || is_much(summary_->new_bytes, summary_->most_peak_bytes);
  }
  bool has_many_arenas() const {
    constexpr int kManyThreads = 3;
    constexpr std::uint64_t kLeastHeap = 16 << 20;
    return summary_ == nullptr ||
           (threads_ >= kManyThreads && summary_->most_peak_bytes >= kLeastHeap);
  }
  // Without a measurement a program may start another, of any language.
  bool is_of(Language language, Language found) const {
    return language == found || (summary_ == nullptr && found == Language::native);
  }
  std::vector<std::string> cowshed_run() const;

 private:
  bool is_sampled_ = false;
  const Summary* summary_ = nullptr;
  int threads_ = 1;
};

// cowshed run leaves small processes alone. The parent holds a little more or less from run to run.
std::vector<std::string> Evidence::cowshed_run() const {
  constexpr std::uint64_t kUsualMiB = 64;
  std::uint64_t least = kUsualMiB * 2 << 20;
  if (summary_ != nullptr) {
    for (const ProcessGroup& each : summary_->groups)
      if (each.shared_bytes && *each.shared_bytes >= kLeastBytes)
        least = std::min(least, *each.shared_bytes);
  }
  const std::uint64_t above = std::bit_floor(std::max<std::uint64_t>(least >> 20, 2) * 2 / 3);
  if (above >= kUsualMiB) return {"cowshed", "run", "--"};
  return {"cowshed", "run", "--above", fmt::format("{}MiB", above), "--"};
}

Cure variable(const std::string& name, const std::string& value) {
  return {.name = name + "=" + value, .environment = {{name, value}}};
}

std::vector<Cure> cures(const Evidence& evidence, Language language) {
  const auto is_of = [&](Language each) { return evidence.is_of(each, language); };
  const bool collects = evidence.has({cow::kGarbageCollector});
  std::vector<Cure> cures;
  if (is_of(Language::python) &&
      evidence.has({cow::kReferenceCount, cow::kGarbageCollector, cow::kCachedHash}))
    cures.push_back({.name = "cowshed run", .prefix = evidence.cowshed_run()});
  if (collects && (is_of(Language::python) || is_of(Language::old_python)))
    cures.push_back({.name = "gc.freeze()",
                     .environment = {{"COWSHED", "gc"}},
                     .prefix = evidence.cowshed_run()});
  if (is_of(Language::ruby) &&
      evidence.has({cow::kGarbageCollector, cow::kFreeList, cow::kObjectFlags, cow::kOwnWrites})) {
    cures.push_back({.name = "warm up Ruby",
                     .environment = {{"RUBYOPT", "-r{}/warm_up.rb"}},
                     .files = {{"warm_up.rb", kWarmUpRuby}},
                     .for_good = "call Process.warmup before the fork; before Ruby 3.3: "
                                 "4.times { GC.start }; GC.compact"});
  }
  if (is_of(Language::ocaml) && collects) cures.push_back(variable("OCAMLRUNPARAM", "o=1000000"));
  if (is_of(Language::php) && collects) {
    cures.push_back({.name = "zend.enable_gc=0",
                     .environment = {{"PHP_INI_SCAN_DIR", ":{}"}},
                     .files = {{"cowtop.ini", "zend.enable_gc=0\n"}},
                     .for_good = "set zend.enable_gc=0 in php.ini"});
  }
  if (evidence.relocates()) cures.push_back(variable("LD_BIND_NOW", "1"));
  if (evidence.has_many_arenas()) cures.push_back(variable("MALLOC_ARENA_MAX", "2"));
  if (evidence.has_own_memory()) {
    // Both grow by themselves, up to 32 and 64 MiB, so that memory that is free stays.
    cures.push_back(variable("GLIBC_TUNABLES",
                             "glibc.malloc.mmap_threshold=131072:"
                             "glibc.malloc.trim_threshold=131072"));
    if (is_of(Language::python) || is_of(Language::old_python))
      cures.push_back(variable("PYTHONMALLOC", "malloc"));
  }
  return cures;
}

std::string_view environment(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? "" : value;
}

// The settings of a list have names, such as "o" in OCAMLRUNPARAM=o=100.
std::vector<std::string> settings_of(std::string_view list, char separator) {
  std::vector<std::string> names;
  while (!list.empty()) {
    const std::string_view one = list.substr(0, list.find(separator));
    list.remove_prefix(std::min(list.size(), one.size() + 1));
    if (const auto at = one.find('='); at != one.npos) names.emplace_back(one.substr(0, at));
  }
  return names;
}

// What glibc reads by two names.
constexpr std::array<std::pair<const char*, const char*>, 3> kOfMalloc = {{
    {"MALLOC_ARENA_MAX", "glibc.malloc.arena_max"},
    {"MALLOC_MMAP_THRESHOLD_", "glibc.malloc.mmap_threshold"},
    {"MALLOC_TRIM_THRESHOLD_", "glibc.malloc.trim_threshold"},
}};

// Where the caller sets the same already; "": nowhere.
std::string set_already(const std::string& name, const std::string& value, char separator) {
  const auto tunables = settings_of(environment("GLIBC_TUNABLES"), ':');
  std::vector<std::string> ours;
  if (separator != '\0') ours = settings_of(value, separator);
  for (const auto& [variable, tunable] : kOfMalloc) {
    if (name == variable && std::ranges::find(tunables, tunable) != tunables.end())
      return fmt::format("{} in GLIBC_TUNABLES", tunable);
    if (std::ranges::find(ours, tunable) != ours.end() && !environment(variable).empty())
      return variable;
  }
  if (separator == '\0') return environment(name).empty() ? "" : name;
  for (const std::string& each : settings_of(environment(name), separator))
    if (std::ranges::find(ours, each) != ours.end()) return fmt::format("{} in {}", each, name);
  return "";
}

}  // namespace

std::vector<Cure> cures_for(const cow::Measurement& measurement, const Summary& summary,
                            Language language, int threads) {
  return cures(Evidence(measurement, summary, threads),
               summary.language != Language::native ? summary.language : language);
}

std::vector<Cure> possible_cures(Language language) { return cures(Evidence(), language); }

std::string keep_environment(Cure& cure) {
  const std::map<std::string, char> lists = {
      {"GLIBC_TUNABLES", ':'}, {"OCAMLRUNPARAM", ','}, {"PHP_INI_SCAN_DIR", ':'}, {"RUBYOPT", ' '}};
  for (auto& [name, value] : cure.environment) {
    const auto list = lists.find(name);
    const char separator = list == lists.end() ? '\0' : list->second;
    if (const std::string where = set_already(name, value, separator); !where.empty())
      return fmt::format("the environment sets {}, and cure leaves that as it is", where);
    if (environment(name).empty()) continue;
    if (!value.starts_with(separator)) value.insert(0, 1, separator);
    value.insert(0, environment(name));
  }
  return "";
}

}  // namespace cowshed::cowtop
