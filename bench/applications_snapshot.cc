#include "applications_snapshot.h"

#include <atomic>
#include <cerrno>
#include <fmt/format.h>
#include <memory>
#include <optional>
#include <stdexcept>
#include <sys/prctl.h>
#include <system_error>
#include <unistd.h>

#include "applications_store.h"
#include "holder.h"
#include "machine.h"
#include "peer.h"

namespace cowshed::bench {
namespace {

using nlohmann::json;

RecordSet records_of(const json& load) {
  return {load["records"].get<std::uint64_t>(), load["written"].get<std::uint64_t>()};
}

class SnapshotWork final : public SubjectWork {
 public:
  explicit SnapshotWork(const json& configuration)
      : set_(records_of(configuration)),
        writes_meanwhile_(configuration["writes meanwhile"]),
        saved_at_(new(shared_memory(sizeof *saved_at_)) std::atomic<std::uint64_t>(0)) {
    if (configuration["way"] == "heap" && prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) {
      throw std::system_error(errno, std::system_category(), "PR_SET_THP_DISABLE");
    }
    pin_to_cpu(0);
    const bool in_arena = configuration["way"] == "arena";
    store_ = make_record_store(in_arena ? "arena" : "heap", set_);
  }

  json facts() const override { return {{"pid", getpid()}}; }

  json answer(const json& question) override {
    if (question["do"] == "begin") return begin();
    if (question["do"] == "use") return use();
    saver_.reset();
    return json::object();
  }

 private:
  // Everything that is written to has been, when it forks.
  json begin() {
    const std::uint64_t before = now_ns();
    for (std::uint64_t i = 0; i < set_.written; ++i) update();
    const std::uint64_t written = now_ns();
    store_->prepare_fork();
    const std::uint64_t prepared = now_ns();
    saver_.emplace([this](std::uint64_t) { return save(); });
    const std::uint64_t forked = now_ns();
    return {{"pids", {saver_->pid()}},
            {"figures",
             {{"writes before", rate(writes_, written - before)},
              {"pause", static_cast<double>(forked - written) / 1e6},
              {"fork", static_cast<double>(forked - prepared) / 1e6}}}};
  }

  // In the forked process.
  std::uint64_t save() {
    const std::uint64_t sum = store_->write_all();
    *saved_at_ = now_ns();
    return sum;
  }

  // Writes until the other has saved, and at least once to each record that it writes to.
  json use() {
    const std::uint64_t before = now_ns();
    const std::uint64_t writes_before = writes_;
    saver_->start(0);
    while (writes_meanwhile_ && (*saved_at_ == 0 || writes_ - writes_before < set_.written)) {
      update();
    }
    const std::uint64_t end = now_ns();
    const std::uint64_t sum = saver_->result();
    json figures = {{"save", static_cast<double>(*saved_at_ - before) / 1e6}};
    figures["writes"] = rate(writes_ - writes_before, end - before);
    return {
        {"saved", sum}, {"writes", writes_}, {"now", store_->write_all()}, {"figures", figures}};
  }

  void update() {
    store_->update(set_.written_number(writes_ % set_.written));
    ++writes_;
  }

  // Million per second.
  static double rate(std::uint64_t count, std::uint64_t ns) {
    return static_cast<double>(count) / static_cast<double>(ns) * 1e3;
  }

  RecordSet set_;
  bool writes_meanwhile_;
  std::atomic<std::uint64_t>* saved_at_;
  std::unique_ptr<RecordStore> store_;
  std::uint64_t writes_ = 0;
  std::optional<Peer> saver_;
};

}  // namespace

Application snapshot(bool quick, Report& report) {
  const json load = {{"records", quick ? 4000 : 400'000},
                     {"written", quick ? 400 : 40'000},
                     {"writes meanwhile", true}};
  report.setting(
      "snapshot",
      fmt::format(
          "a hash table of {} strings to records of some 190 bytes; a forked process writes "
          "all of it to /dev/null with a checksum, on another CPU, while the parent updates "
          "{} of them, all over the table, again and again, and each once at least. What "
          "is saved must be the state at the fork, and what the parent has in the end that "
          "of all its writes",
          load["records"].dump(), load["written"].dump()));
  report.setting("snapshot/pause",
                 "what the parent does between two writes to have the forked "
                 "process: for the arena also a new generation");
  report.setting("snapshot/writes", "the parent's, while the other saves; writes before: without");
  report.setting("snapshot/copied pages",
                 "by either process, of what they share by the fork; no writes: in a run in which "
                 "the parent waits, by the saving process alone");
  report.setting(
      "snapshot, its ways",
      fmt::format("heap: std::unordered_map of std::string, written in place, {}; huge pages: {}; "
                  "arena: the records in a frozen arena (strict), which nobody writes to; updates "
                  "go to a second table on the heap, which before a save becomes a generation of "
                  "the arena (thaw, refreeze), so that a reader looks into up to three tables, and "
                  "what is outdated stays",
                  kHeapSetting, kHugeHeapSetting));
  return {.name = "snapshot",
          .ways = {{"arena", {{"way", "arena"}}},
                   {"heap", {{"way", "heap"}}},
                   {"heap, huge pages",
                    {{"way", "huge heap"}},
                    {"GLIBC_TUNABLES=glibc.malloc.hugetlb=1"}},
                   {"arena again", {{"way", "arena"}}}},
          .load = load,
          .metrics = {{"pause", "ms"},
                      {"fork", "ms"},
                      {"save", "ms"},
                      {"writes", "million/s"},
                      {"writes before", "million/s"}},
          .counted = {{"copied pages"}, {"copied pages, no writes", {{"writes meanwhile", false}}}},
          .check = [right = RightSum(records_of(load)), set = records_of(load)](const json&,
                                                                                const json& use) {
            if (use["saved"] != right.after(set.written)) {
              throw std::runtime_error("what is saved is not the state at the fork");
            }
            if (use["now"] != right.after(use["writes"])) {
              throw std::runtime_error("the parent has lost a write");
            }
          }};
}

std::unique_ptr<SubjectWork> make_snapshot_work(const json& configuration) {
  return std::make_unique<SnapshotWork>(configuration);
}

}  // namespace cowshed::bench
