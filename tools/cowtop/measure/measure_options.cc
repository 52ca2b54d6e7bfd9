#include <CLI/CLI.hpp>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/measure/measure_options.h>

namespace cowshed::cowtop {
namespace {

constexpr std::uint32_t kUsualPeriod = 64;
constexpr std::uint32_t kUsualSamplesOfPeriod = 512;
constexpr std::uint32_t kMostPeriod = 1'000'000'000;
constexpr std::uint32_t kMostSeconds = 1'000'000'000;

}  // namespace

SamplingOptions usual_sampling() { return {kUsualPeriod, kUsualSamplesOfPeriod}; }

MeasureArguments::MeasureArguments(CLI::App& app, Otherwise otherwise)
    : otherwise_(otherwise), selected_(app) {
  run_as_ = app.add_option("-u,--user", user_,
                           "Run the command as USER, with that user's groups, HOME, USER and"
                           " LOGNAME, but the PATH that cowtop has: sudo's, unless called as"
                           " sudo env \"PATH=$PATH\" cowtop.  What cowtop writes is its own all the"
                           " same")
                ->type_name("USER");
  count_ = app.add_option("-c,--count", period_,
                          "Sample one copy in N of each thread, as perf record -c: samples say"
                          " which code copied, and why; counts stay exact.  Without it N is 64, and"
                          " grows while all processes together copy much")
               ->type_name("N")
               ->check(CLI::Range(1U, kMostPeriod).description(""));
  duration_ =
      app.add_option("--duration", seconds_, "Measure what runs already for so long, and report")
          ->type_name("SECONDS")
          ->check(CLI::Range(1U, kMostSeconds).description(""));
  app.add_flag("--alike", alike_,
               "Compare all private pages of all processes after 1, 2, 4 ... seconds, for 0.25 s of"
               " CPU time per GiB.  Without it cowtop compares a sample, and at the end of what it"
               " is attached to all");
  app.add_flag("--no-sites", no_sites_, "Count pages alone, without samples")->excludes(count_);
}

Expected<MeasureOptions> MeasureArguments::options(std::vector<std::string> command) const {
  MeasureOptions options;
  options.command = std::move(command);
  options.compares_all = alike_;
  TRY(options.backend, selected_.backend());
  const bool can_sample = options.backend != cow::BackendChoice::pagemap;
  if (count_->count() > 0 && !can_sample)
    return wrong("-c: the pagemap backend does not see who copies");
  if (can_sample && !no_sites_)
    options.sampling = count_->count() == 0 ? usual_sampling() : SamplingOptions{period_};
  TRY(options.selection, selected_.selection());
  if (options.selection && !options.command.empty())
    return wrong("give either " + options.selection->text() + " or a command, not both");
  if (!options.selection && options.command.empty()) {
    if (otherwise_ == Otherwise::is_wrong)
      return wrong("nothing to measure: give a command after --, or -p PID");
    options.selection.emplace();
  }
  if (duration_->count() > 0) {
    if (!options.selection) return wrong("--duration: a command is measured to its end");
    options.duration = std::chrono::seconds(seconds_);
  }
  if (run_as_->count() > 0) {
    if (options.selection) return wrong("-u: what is attached to runs already");
    auto user = cow::find_user(user_);
    if (!user) return wrong("-u: " + user.error().message);
    options.user = std::move(*user);
  }
  return options;
}

}  // namespace cowshed::cowtop
