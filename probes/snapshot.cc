#include <algorithm>
#include <bpf/bpf.h>
#include <cerrno>
#include <cstring>
#include <signal.h>
#include <sys/wait.h>
#include <tuple>
#include <utility>

#include <cowshed/probes/snapshot.h>

namespace cowshed {
namespace {

constexpr int kMostAttempts = 50;

struct KeyOrder {
  bool operator()(const cowshed_key& a, const cowshed_key& b) const {
    return std::tie(a.start_ns, a.tgid) < std::tie(b.start_ns, b.tgid);
  }
};

using Records = std::map<cowshed_key, cowshed_process, KeyOrder>;

struct LiveThreads {
  cowshed_counts counts = {};
  std::uint64_t pending = 0;
  std::uint32_t threads = 0;
  std::string comm;
};

using Live = std::map<cowshed_key, LiveThreads, KeyOrder>;

void add(cowshed_counts& sum, const cowshed_counts& part) {
  for (int i = 0; i < COWSHED_CLASSES; ++i) {
    sum.faults[i] += part.faults[i];
  }
  sum.write_faults += part.write_faults;
  sum.zero_filled_pages += part.zero_filled_pages;
  sum.huge_splits += part.huge_splits;
  sum.events += part.events;
  sum.vma_misses += part.vma_misses;
}

template <class Key, class Value, class Visit>
Expected<void> for_each_entry(int map, const char* name, Visit visit) {
  Key key = {};
  for (Key* previous = nullptr; bpf_map_get_next_key(map, previous, &key) == 0; previous = &key) {
    Value value = {};
    if (bpf_map_lookup_elem(map, &key, &value) == 0) {
      visit(key, value);
    }
  }
  if (errno != ENOENT) {
    return system_error(std::string("reading the BPF map ") + name, errno);
  }
  return {};
}

Expected<Records> read_records(const Programs& programs) {
  Records records;
  auto read = for_each_entry<cowshed_key, cowshed_process>(
      programs.processes_map(), "processes",
      [&](const cowshed_key& key, const cowshed_process& process) { records[key] = process; });
  if (!read) {
    return tl::make_unexpected(read.error());
  }
  return records;
}

Expected<Live> read_live(const Programs& programs) {
  auto threads = programs.dump_threads();
  if (!threads) {
    return tl::make_unexpected(threads.error());
  }
  Live live;
  for (const cowshed_thread_record& thread : *threads) {
    LiveThreads& process = live[thread.key];
    add(process.counts, thread.counts);
    process.pending += thread.pending;
    ++process.threads;
    if (thread.is_leader != 0) {
      process.comm.assign(thread.comm, strnlen(thread.comm, sizeof thread.comm));
    }
  }
  return live;
}

bool is_whole(const cowshed_process& process) { return process.flush_end == process.flush_begin; }

// Whether no thread ended between the two reads, so that live threads and record fit together.
bool fits(const Records& before, const cowshed_key& key, const cowshed_process& after) {
  const auto found = before.find(key);
  const std::uint64_t flushes = found == before.end() ? 0 : found->second.flush_end;
  return is_whole(after) && flushes == after.flush_end;
}

void set_counts(ProcessCounts& to, const cowshed_counts& from) {
  to.copied_anon_pages = from.faults[COWSHED_COPIED_ANON];
  to.copied_file_pages = from.faults[COWSHED_COPIED_FILE];
  to.reused_pages = from.faults[COWSHED_REUSED];
  to.zero_page_writes = from.faults[COWSHED_ZERO_PAGE_WRITE];
  to.zero_filled_faults = from.faults[COWSHED_ZERO_FILLED];
  to.write_notify_faults = from.faults[COWSHED_WRITE_NOTIFY];
  to.failed_faults = from.faults[COWSHED_FAILED];
  to.other_faults = from.faults[COWSHED_OTHER];
  to.write_faults = from.write_faults;
  to.zero_filled_pages = from.zero_filled_pages;
  to.huge_splits = from.huge_splits;
}

ProcessCounts describe(const cowshed_key& key, const cowshed_process& process) {
  ProcessCounts counts;
  counts.id = process.id;
  counts.parent_id = process.parent_id;
  counts.pid = static_cast<int>(process.pid);
  counts.ppid = static_cast<int>(process.ppid);
  counts.comm.assign(process.comm, strnlen(process.comm, sizeof process.comm));
  counts.role = (process.flags & COWSHED_ROOT) != 0 ? ProcessRole::root : ProcessRole::child;
  counts.shares_memory = (process.flags & COWSHED_SHARES_MEMORY) != 0;
  counts.start_ns = key.start_ns;
  counts.threads_total = process.threads_total;
  counts.execs = process.execs;
  counts.copied_pages_before_exec = process.copied_before_exec;
  if ((process.flags & COWSHED_FORK_SEEN) != 0) {
    counts.shared_at_fork_anon_bytes = process.shared_at_fork_bytes;
  }
  if ((process.flags & COWSHED_ENDED) != 0) {
    const int status = static_cast<int>(process.exit_code);
    counts.alive = false;
    counts.end_ns = process.end_ns;
    if (WIFEXITED(status)) {
      counts.exit_status = WEXITSTATUS(status);
    } else {
      counts.signal = WTERMSIG(status);
    }
  }
  return counts;
}

Expected<void> read_arenas(int map, std::map<cowshed_key, ProcessCounts*, KeyOrder>& processes) {
  std::vector<cowshed_arena_key> done;
  auto read = for_each_entry<cowshed_arena_key, cowshed_arena>(
      map, "arenas", [&](const cowshed_arena_key& key, const cowshed_arena& arena) {
        const auto found = processes.find(key.process);
        if (found == processes.end()) {
          return;
        }
        found->second->arenas.push_back(
            {std::string(arena.name, strnlen(arena.name, sizeof arena.name)), key.inode,
             arena.copied_pages});
        if (!found->second->alive) {
          done.push_back(key);
        }
      });
  for (const cowshed_arena_key& key : done) {
    bpf_map_delete_elem(map, &key);
  }
  return read;
}

}  // namespace

Expected<std::vector<ProcessCounts>> SnapshotReader::read(std::uint64_t& events,
                                                          std::uint64_t& vma_misses) {
  std::map<cowshed_key, ProcessCounts, KeyOrder> result;
  events = ended_events_;
  vma_misses = ended_vma_misses_;
  Records after;
  for (int attempt = 1, unfit = 1; unfit != 0; ++attempt) {
    auto before = read_records(*programs_);
    auto live = before ? read_live(*programs_) : tl::make_unexpected(before.error());
    auto records = live ? read_records(*programs_) : tl::make_unexpected(live.error());
    if (!records) {
      return tl::make_unexpected(records.error());
    }
    unfit = 0;
    for (const auto& [key, process] : *records) {
      if (result.count(key) != 0) {
        continue;
      }
      const bool ended = (process.flags & COWSHED_ENDED) != 0;
      ProcessCounts counts = describe(key, process);
      cowshed_counts sum = process.counts;
      if (!(ended ? is_whole(process) : fits(*before, key, process))) {
        if (attempt < kMostAttempts) {
          ++unfit;
          continue;
        }
        if (ended) {
          continue;  // for the next snapshot
        }
        // Threads come and go faster than we read: an older view is whole, this one is not.
        if (const auto last = last_.find(counts.id); last != last_.end()) {
          counts = last->second;
        }
        result.emplace(key, std::move(counts));
        continue;
      }
      if (const auto threads = live->find(key); !ended && threads != live->end()) {
        add(sum, threads->second.counts);
        counts.pending_faults = threads->second.pending;
        counts.threads = threads->second.threads;
        if (!threads->second.comm.empty()) {
          counts.comm = threads->second.comm;
        }
      }
      set_counts(counts, sum);
      events += sum.events;
      vma_misses += sum.vma_misses;
      if (ended) {
        ended_events_ += sum.events;
        ended_vma_misses_ += sum.vma_misses;
      }
      result.emplace(key, std::move(counts));
    }
  }

  std::map<cowshed_key, ProcessCounts*, KeyOrder> by_key;
  for (auto& [key, counts] : result) {
    by_key[key] = &counts;
  }
  if (auto read = read_arenas(programs_->arenas_map(), by_key); !read) {
    return tl::make_unexpected(read.error());
  }
  std::vector<ProcessCounts> processes;
  last_.clear();
  for (auto& [key, counts] : result) {
    if (!counts.alive) {
      bpf_map_delete_elem(programs_->processes_map(), &key);
    } else {
      last_[counts.id] = counts;
    }
    processes.push_back(std::move(counts));
  }
  std::sort(processes.begin(), processes.end(),
            [](const ProcessCounts& a, const ProcessCounts& b) { return a.id < b.id; });
  return processes;
}

}  // namespace cowshed
