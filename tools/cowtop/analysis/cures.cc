#include <algorithm>
#include <bit>
#include <fmt/format.h>
#include <initializer_list>
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

class Evidence {
 public:
  Evidence(const cow::Measurement& measurement, const Summary& summary)
      : is_sampled_(measurement.sampled && !summary.causes.empty()), summary_(summary) {}

  // Whether much was copied for one of the causes; true also if causes are not known.
  bool has(std::initializer_list<std::string_view> causes) const {
    if (summary_.sharers == 0 || summary_.copied_bytes < kLeastBytes) return false;
    std::uint64_t bytes = 0;
    for (const Share& each : summary_.causes)
      if (std::ranges::find(causes, each.name) != causes.end()) bytes += each.bytes;
    return !is_sampled_ || is_much(bytes, summary_.copied_bytes);
  }
  bool relocates() const {
    return is_much(summary_.relocated_bytes, summary_.copied_bytes + summary_.file_bytes);
  }
  // Memory that children allocated themselves is much of all.
  bool has_own_memory() const { return is_much(summary_.new_bytes, summary_.most_peak_bytes); }

 private:
  bool is_sampled_;
  const Summary& summary_;
};

// cowshed run leaves small processes alone. The parent holds a little more or less from run to run.
std::string cowshed_run(const Summary& summary) {
  constexpr std::uint64_t kUsualMiB = 64;
  std::uint64_t least = kUsualMiB * 2 << 20;
  for (const ProcessGroup& each : summary.groups)
    if (each.shared_bytes && *each.shared_bytes >= kLeastBytes)
      least = std::min(least, *each.shared_bytes);
  const std::uint64_t above = std::bit_floor(std::max<std::uint64_t>(least >> 20, 2) * 2 / 3);
  return above >= kUsualMiB ? "cowshed run" : fmt::format("cowshed run --above {}MiB", above);
}

Cure variable(const std::string& name, const std::string& value) {
  return {.name = name + "=" + value, .keep = name + "=" + value, .environment = {{name, value}}};
}

}  // namespace

std::vector<Cure> cures_for(const cow::Measurement& measurement, const Summary& summary,
                            Language language, int threads) {
  const Evidence evidence(measurement, summary);
  if (const Language seen = language_of(measurement, summary); seen != Language::native)
    language = seen;
  const bool collects = evidence.has({cow::kGarbageCollector});
  std::vector<Cure> cures;
  const auto by_cowshed = [&](const char* name, const std::string& prefix) {
    cures.push_back(
        {.name = name, .keep = prefix + cowshed_run(summary) + " --", .is_cowshed_run = true});
    if (!prefix.empty()) cures.back().environment.emplace_back("COWSHED", "gc");
  };
  if (language == Language::python &&
      evidence.has({cow::kReferenceCount, cow::kGarbageCollector, cow::kCachedHash}))
    by_cowshed("cowshed run", "");
  if (collects && (language == Language::python || language == Language::old_python))
    by_cowshed("gc.freeze()", "COWSHED=gc ");
  if (language == Language::ruby &&
      evidence.has({cow::kGarbageCollector, cow::kFreeList, cow::kObjectFlags, cow::kOwnWrites})) {
    cures.push_back({.name = "warm up Ruby",
                     .keep = "call Process.warmup before the fork; before Ruby 3.3: "
                             "4.times { GC.start }; GC.compact",
                     .environment = {{"RUBYOPT", "-r{}/warm_up.rb"}},
                     .files = {{"warm_up.rb", kWarmUpRuby}}});
  }
  if (language == Language::ocaml && collects)
    cures.push_back(variable("OCAMLRUNPARAM", "o=1000000"));
  if (language == Language::php && collects) {
    cures.push_back({.name = "zend.enable_gc=0",
                     .keep = "set zend.enable_gc=0 in php.ini",
                     .environment = {{"PHP_INI_SCAN_DIR", ":{}"}},
                     .files = {{"cowtop.ini", "zend.enable_gc=0\n"}}});
  }
  if (evidence.relocates()) cures.push_back(variable("LD_BIND_NOW", "1"));
  constexpr int kManyThreads = 3;
  constexpr std::uint64_t kLeastHeap = 16 << 20;
  if (threads >= kManyThreads && summary.most_peak_bytes >= kLeastHeap)
    cures.push_back(variable("MALLOC_ARENA_MAX", "2"));
  if (evidence.has_own_memory()) {
    // Both grow by themselves, up to 32 and 64 MiB, so that memory that is free stays.
    cures.push_back(variable("GLIBC_TUNABLES",
                             "glibc.malloc.mmap_threshold=131072:"
                             "glibc.malloc.trim_threshold=131072"));
    if (language == Language::python || language == Language::old_python)
      cures.push_back(variable("PYTHONMALLOC", "malloc"));
  }
  return cures;
}

}  // namespace cowshed::cowtop
