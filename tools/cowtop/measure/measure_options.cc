#include <CLI/CLI.hpp>
#include <utility>

#include <cowshed/base/try.h>
#include <cowshed/tools/cowtop/cli/complain.h>
#include <cowshed/tools/cowtop/measure/measure_options.h>

namespace cowshed::cowtop {
namespace {

constexpr std::uint32_t kUsualPeriod = 64;
constexpr std::uint32_t kMostPeriod = 1'000'000'000;

}  // namespace

MeasureArguments::MeasureArguments(CLI::App& app, Otherwise otherwise)
    : otherwise_(otherwise), selected_(app) {
  run_as_ = app.add_option("-u,--user", user_,
                           "Run the command as USER, with that user's groups, HOME, USER and"
                           " LOGNAME, but the PATH that cowtop has: sudo's, unless called as"
                           " sudo env \"PATH=$PATH\" cowtop.  What cowtop writes is its own all the"
                           " same")
                ->type_name("USER");
  app.add_flag("--sites", sites_,
               "Also the code, the mappings and the address ranges that copied most, by sampling;"
               " the counts of pages stay exact");
  count_ = app.add_option("-c,--count", period_,
                          "With --sites: sample one copy in N of each thread (64), as perf record"
                          " -c")
               ->type_name("N")
               ->check(CLI::Range(1U, kMostPeriod).description(""));
}

Expected<MeasureOptions> MeasureArguments::options(std::vector<std::string> command) const {
  MeasureOptions options;
  options.command = std::move(command);
  if (count_->count() > 0 && !sites_) return wrong("-c: only with --sites");
  if (sites_) options.sampling.period = count_->count() == 0 ? kUsualPeriod : period_;
  TRY(options.backend, selected_.backend());
  if (sites_ && options.backend == cow::BackendChoice::pagemap)
    return wrong("--sites: the pagemap backend does not see who copies");
  TRY(options.selection, selected_.selection());
  if (options.selection && !options.command.empty())
    return wrong("give either " + options.selection->text() + " or a command, not both");
  if (!options.selection && options.command.empty()) {
    if (otherwise_ == Otherwise::is_wrong)
      return wrong("nothing to measure: give a command after --, or -p PID");
    options.selection.emplace();
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
