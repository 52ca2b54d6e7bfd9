#include <bpf/bpf.h>
#include <cerrno>
#include <cstring>

#include <cowshed/base/try.h>
#include <cowshed/probes/loader/kernel_records.h>

namespace cowshed {
namespace {

template <class Key, class Value, class Visit>
Expected<void> for_each_entry(int map, const char* name, Visit visit) {
  Key key = {};
  const Key* previous = nullptr;
  while (bpf_map_get_next_key(map, previous, &key) == 0) {
    Value value = {};
    if (bpf_map_lookup_elem(map, &key, &value) == 0) visit(key, value);
    previous = &key;
  }
  if (errno != ENOENT) return system_error(std::string("reading the BPF map ") + name, errno);
  return {};
}

template <std::size_t N>
std::string text(const char (&field)[N]) {
  return {field, strnlen(field, N)};
}

cowshed_arena_key key_of(const cowshed_key& process, const ArenaCount& arena) {
  return {process, arena.memory, arena.inode, arena.origin};
}

ArenaCount count_of(const cowshed_arena_key& key, const cowshed_arena& arena) {
  return {.name = arena_name(arena.name),
          .inode = key.inode,
          .copied_pages = arena.copied_pages,
          .memory = key.memory,
          .copied_again = arena.copied_again,
          .origin = key.origin,
          .begin = arena.begin,
          .end = arena.end,
          .file_bytes = arena.file_bytes,
          .written_pages = arena.written_pages};
}

}  // namespace

std::string arena_name(const char (&field)[COWSHED_ARENA_NAME_BYTES]) {
  std::string name = text(field);
  for (auto at = name.find('\n'); at != name.npos; at = name.find('\n', at))
    name.replace(at, 1, "\\012");
  return name.substr(0, sizeof field - 1);
}

void add(cowshed_counts& sum, const cowshed_counts& part) {
  auto* const to = reinterpret_cast<__u64*>(&sum);
  const auto* const from = reinterpret_cast<const __u64*>(&part);
  for (std::size_t i = 0; i < COWSHED_COUNT_WORDS; ++i) to[i] += from[i];
}

Expected<ByProcess<cowshed_process>> read_processes(const Programs& programs) {
  ByProcess<cowshed_process> records;
  TRY_VOID(for_each_entry<cowshed_key, cowshed_process>(
      programs.processes_map(), "processes",
      [&](const cowshed_key& key, const cowshed_process& process) { records[key] = process; }));
  return records;
}

Expected<ByProcess<LiveThreads>> read_live_threads(const Programs& programs) {
  TRY(auto threads, programs.dump_threads());
  ByProcess<LiveThreads> live;
  for (const cowshed_thread_record& thread : threads) {
    LiveThreads& process = live[thread.key];
    add(process.counts, thread.counts);
    process.pending += thread.pending;
    ++process.threads;
    if (thread.is_torn != 0) process.is_torn = true;
    if (thread.is_leader != 0) process.comm = text(thread.comm);
  }
  return live;
}

Expected<ByProcess<std::vector<ArenaCount>>> read_arenas(const Programs& programs) {
  ByProcess<std::vector<ArenaCount>> arenas;
  TRY_VOID(for_each_entry<cowshed_arena_key, cowshed_arena>(
      programs.arenas_map(), "arenas",
      [&](const cowshed_arena_key& key, const cowshed_arena& arena) {
        arenas[key.process].push_back(count_of(key, arena));
      }));
  return arenas;
}

ByProcess<cowshed_process> look_up(const Programs& programs,
                                   const ByProcess<cowshed_process>& known) {
  ByProcess<cowshed_process> records;
  for (const auto& [key, unused] : known) {
    cowshed_process record = {};
    if (bpf_map_lookup_elem(programs.processes_map(), &key, &record) == 0)
      records.emplace_hint(records.end(), key, record);
  }
  return records;
}

ByProcess<std::vector<ArenaCount>> look_up(const Programs& programs,
                                           const ByProcess<std::vector<ArenaCount>>& known) {
  ByProcess<std::vector<ArenaCount>> found;
  for (const auto& [process, arenas] : known) {
    for (const ArenaCount& arena : arenas) {
      const cowshed_arena_key key = key_of(process, arena);
      cowshed_arena now = {};
      if (bpf_map_lookup_elem(programs.arenas_map(), &key, &now) == 0)
        found[process].push_back(count_of(key, now));
    }
  }
  return found;
}

ForkCosts fork_costs_of(const Programs& programs, const cowshed_key& key, bool ended) {
  ForkCosts costs;
  cowshed_fork_costs record = {};
  const auto read = ended ? bpf_map_lookup_and_delete_elem : bpf_map_lookup_elem;
  if (read(programs.fork_costs_map(), &key, &record) != 0) return costs;
  costs.total_ns = record.total_ns;
  costs.longest_ns = record.longest_ns;
  costs.beside_threads = record.beside_threads;
  costs.most_threads = record.most_threads;
  costs.written_pages = record.written_pages;
  costs.spawns = record.spawns;
  constexpr std::uint64_t kParts = 1U << COWSHED_FORK_PARTS_LOG;
  for (std::uint64_t i = 0; i < COWSHED_FORK_DURATIONS; ++i) {
    const std::uint64_t octave = i / kParts + COWSHED_FORK_LEAST_LOG - COWSHED_FORK_PARTS_LOG;
    const std::uint64_t middle = ((2 * (kParts + i % kParts) + 1) << octave) / 2;
    if (record.durations[i] != 0) costs.durations.push_back({middle, record.durations[i]});
  }
  for (int error = 0; error < COWSHED_ERRNOS; ++error)
    if (record.failed[error] != 0) costs.failures.push_back({error, record.failed[error]});
  return costs;
}

Expected<void> put_roots(const Programs& programs, std::span<const int> pids) {
  for (const int pid : pids) {
    const auto key = static_cast<__u32>(pid);
    const cowshed_root root = {};
    if (bpf_map_update_elem(programs.roots_map(), &key, &root, BPF_ANY) != 0)
      return system_error("writing to the BPF map roots", errno);
  }
  return {};
}

std::vector<int> take_roots_not_found(const Programs& programs, std::span<const int> pids) {
  std::vector<int> result;
  for (const int pid : pids) {
    const auto key = static_cast<__u32>(pid);
    cowshed_root root = {};
    const bool is_there = bpf_map_lookup_and_delete_elem(programs.roots_map(), &key, &root) == 0;
    if (is_there && root.is_found == 0) result.push_back(pid);
  }
  return result;
}

cowshed_process take_process(const Programs& programs, const cowshed_key& key,
                             const cowshed_process& known) {
  cowshed_process last = {};
  return bpf_map_lookup_and_delete_elem(programs.processes_map(), &key, &last) == 0 ? last : known;
}

void forget_arenas(const Programs& programs, const cowshed_key& key,
                   const std::vector<ArenaCount>& arenas) {
  for (const ArenaCount& arena : arenas) {
    const cowshed_arena_key entry = key_of(key, arena);
    bpf_map_delete_elem(programs.arenas_map(), &entry);
  }
}

}  // namespace cowshed
