#include "sharing_work.h"

#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

#include "peer.h"
#include "sharing_dictionary.h"

namespace cowshed::bench {
namespace {

using nlohmann::json;

constexpr unsigned kPassShift = 48;  // in what a worker is told; the rest is how many look-ups

class SharingWork final : public SubjectWork {
 public:
  explicit SharingWork(const json& configuration)
      : entries_(configuration["entries"]),
        dictionary_(make_dictionary(configuration["way"], entries_)) {}

  json facts() const override { return {{"pid", getpid()}}; }

  json answer(const json& question) override {
    const std::string what = question["do"];
    const std::uint64_t before = now_ns();
    json result = json::object();
    if (what == "begin") {
      start(question["workers"]);
      result["answers"] = answers();
    } else if (what == "use") {
      const std::uint64_t pass = question["pass"];
      const std::uint64_t look_ups = question["look_ups"];
      for (const auto& worker : workers_) worker->start(pass << kPassShift | look_ups);
      result["answers"] = answers();
    } else {
      workers_.clear();
    }
    result["ns"] = now_ns() - before;
    if (what == "begin") {
      for (const auto& worker : workers_) result["pids"].push_back(worker->pid());
    }
    return result;
  }

 private:
  void start(std::size_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      workers_.push_back(std::make_unique<Peer>(
          [this, i](std::uint64_t task) {
            const std::uint64_t look_ups = task & ((std::uint64_t{1} << kPassShift) - 1);
            return dictionary_->look_up(Keys({i, task >> kPassShift}, entries_), look_ups);
          },
          i));
      workers_.back()->start(kFirstPass << kPassShift | 1);
    }
  }

  json answers() const {
    json result = json::array();
    for (const auto& worker : workers_) result.push_back(worker->result());
    return result;
  }

  std::size_t entries_;
  std::unique_ptr<Dictionary> dictionary_;
  std::vector<std::unique_ptr<Peer>> workers_;
};

}  // namespace

std::unique_ptr<SubjectWork> make_sharing_work(const json& configuration) {
  return std::make_unique<SharingWork>(configuration);
}

}  // namespace cowshed::bench
