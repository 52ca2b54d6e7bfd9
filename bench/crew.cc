#include "crew.h"

namespace cowshed::bench {

Crew::Crew(std::size_t count, const Work& work) {
  for (std::uint64_t rank = 0; rank < count; ++rank) {
    peers_.push_back(std::make_unique<Peer>(
        [&work, rank](std::uint64_t task) { return work(rank, task); }, rank));
  }
}

void Crew::start(std::uint64_t task) const {
  for (const auto& peer : peers_) peer->start(task);
}

std::vector<std::uint64_t> Crew::results() const {
  std::vector<std::uint64_t> results;
  results.reserve(peers_.size());
  for (const auto& peer : peers_) results.push_back(peer->result());
  return results;
}

std::vector<pid_t> Crew::pids() const {
  std::vector<pid_t> pids;
  pids.reserve(peers_.size());
  for (const auto& peer : peers_) pids.push_back(peer->pid());
  return pids;
}

}  // namespace cowshed::bench
