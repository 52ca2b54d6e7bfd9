#pragma once

#include <chrono>
#include <stdexcept>

#include <cowshed/share/workers.h>
#include <cowshed/tools/search/engine.h>
#include <cowshed/tools/search/links.h>
#include <cowshed/tools/search/storage.h>

namespace cowshed::search {

// Of `expected`, or an exception, which start() brings to the parent as text.
template <class T>
T value_or_throw(Expected<T>&& expected) {
  if (!expected) {
    throw std::runtime_error(expected.error().message);
  }
  if constexpr (!std::is_void_v<T>) {
    return std::move(*expected);
  }
}

// What a worker runs: query i is for worker i % count.  It measures itself, then stays, as a
// service does, until it is dismissed.
template <class Storage>
void work(const Worker& self, const Index<Storage>& index, const Storage& storage,
          WarmPages<Storage>& pages, const std::vector<Query>& queries, Links& links) {
  const auto rank = static_cast<std::size_t>(self.rank);
  const auto count = static_cast<std::size_t>(self.count);
  links.keep_only(rank);
  links.wait_for_signal();
  WorkerSummary summary;
  summary.private_bytes_at_start = value_or_throw(private_bytes());
  const auto begin = std::chrono::steady_clock::now();
  tally = {};
  free_pages_of_others<Storage>(pages, rank, count);
  Engine<Storage> engine(index, pages);
  for (std::size_t i = rank; i < queries.size(); i += count) {
    value_or_throw(links.send_answer(i, engine.answer(queries[i])));
  }
  const std::chrono::duration<double> busy = std::chrono::steady_clock::now() - begin;
  summary.busy_s = busy.count();
  summary.references_copied = tally.references_copied;
  summary.frees = tally.frees;
  summary.private_bytes_at_end = value_or_throw(private_bytes());
  if (const auto range = storage.frozen_range()) {
    summary.has_arena = true;
    summary.arena_copied_bytes = value_or_throw(copied_bytes(*range));
    summary.dropped_frees = storage.dropped_frees();
  }
  value_or_throw(links.send_summary(summary));
  links.wait_for_signal();
}

}  // namespace cowshed::search
