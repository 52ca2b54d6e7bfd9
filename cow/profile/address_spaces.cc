#include <algorithm>
#include <iterator>
#include <set>

#include <cowshed/base/clock.h>
#include <cowshed/cow/profile/address_spaces.h>

namespace cowshed::cow {
namespace {

// A program maps most of what it ever maps soon after its exec.
constexpr std::uint64_t kFirstReadsNs = 5'000'000;
constexpr std::size_t kMostKept = 8;

std::size_t hash_of(const std::vector<Mapping>& mappings) {
  std::size_t hash = 0;
  for (const Mapping& mapping : mappings) {
    for (const std::uint64_t part : {mapping.begin, mapping.end, mapping.inode}) {
      hash = (hash ^ part) * 0x9e3779b97f4a7c15;
      hash ^= hash >> 32;
    }
  }
  return hash;
}

}  // namespace

const Mapping* AddressSpace::find(std::uint64_t address) const {
  const auto after = std::ranges::upper_bound(mappings, address, {}, &Mapping::begin);
  if (after == mappings.begin() || address >= std::prev(after)->end) return nullptr;
  return &*std::prev(after);
}

AddressSpaces::AddressSpaces(ProcFiles proc, BinaryCache& binaries, OnInterpreter on_interpreter)
    : proc_(std::move(proc)), binaries_(&binaries), on_interpreter_(std::move(on_interpreter)) {}

std::shared_ptr<StackUnwinder> AddressSpaces::unwinder_for(const std::vector<Mapping>& mappings,
                                                           pid_t pid) {
  std::weak_ptr<StackUnwinder>& kept = unwinders_[StackUnwinder::code_layout(mappings)];
  auto unwinder = kept.lock();
  if (!unwinder) {
    unwinder = std::make_shared<StackUnwinder>(mappings, pid, *binaries_);
    kept = unwinder;
  }
  return unwinder;
}

std::shared_ptr<AddressSpace> AddressSpaces::space_of(std::vector<Mapping> mappings, pid_t pid) {
  const std::size_t hash = hash_of(mappings);
  const auto [begin, end] = spaces_.equal_range(hash);
  for (auto each = begin; each != end; ++each)
    if (auto space = each->second.lock(); space && space->mappings == mappings) return space;
  auto space = std::make_shared<AddressSpace>();
  space->unwinder = unwinder_for(mappings, pid);
  space->mappings = std::move(mappings);
  spaces_.emplace(hash, space);
  return space;
}

bool AddressSpaces::read(Known& known, std::uint64_t now_ns) {
  const std::uint64_t begin = monotonic_ns();
  auto mappings = proc_.maps(known.pid);
  const std::uint64_t end = monotonic_ns();
  known.reads.ran(end, end - begin);
  if (!mappings || mappings->empty()) return false;
  known.space = space_of(std::move(*mappings), known.pid);
  known.owner = static_cast<uid_t>(proc_.status_number(known.pid, "Uid"));
  known.read_ns = now_ns;
  if (known.read.size() == kMostKept) known.read.erase(known.read.begin());
  known.read.emplace_back(now_ns, known.space);
  report_interpreter(known);
  return true;
}

void AddressSpaces::report_interpreter(Known& known) {
  const std::optional<PythonLayout>& interpreter = known.space->unwinder->python();
  if (!interpreter || known.interpreter == interpreter) return;
  known.interpreter = interpreter;
  on_interpreter_(known.image, *interpreter);
}

// The child gets the first address space of `parent` after the fork, and the last before it.
void AddressSpaces::inherit(Known& child, const Known& parent, std::uint64_t fork_ns) {
  const auto after =
      std::ranges::find_if(parent.read, [&](const auto& read) { return read.first >= fork_ns; });
  child.space = after == parent.read.end() ? parent.space : after->second;
  if (after != parent.read.begin()) child.space_before = std::prev(after)->second;
  child.read_ns = parent.read_ns;
  child.owner = parent.owner;
  if (child.image == parent.image) child.interpreter = parent.interpreter;
}

void AddressSpaces::update(const ProcessCounts& process, std::uint64_t now_ns) {
  const auto [entry, is_new] = known_.try_emplace(process.id);
  Known& known = entry->second;
  known.pid = process.pid;
  known.parent_id = process.parent_id;
  known.alive = process.alive && process.pid != 0;
  if (std::exchange(known.image, process.image) != process.image) known.interpreter.reset();
  if (is_new) {
    const auto parent = known_.find(process.parent_id);
    known.own_image = parent == known_.end();
    known.image_ns = now_ns;
    if (!known.own_image) {
      Known& from = parent->second;
      // It may have mapped more before the fork.
      if (from.alive && from.read_ns < process.start_ns) read(from, now_ns);
      inherit(known, from, process.start_ns);
      // It ran before us, so it may have executed a program after its fork.
      if (known.alive && known.image != from.image) read(known, now_ns);
    }
  }
  if (std::exchange(known.execs, process.execs) != process.execs) {
    known.own_image = true;
    known.image_ns = now_ns;
    known.read_ns = 0;
    known.space.reset();
    known.space_before.reset();
    known.read.clear();
  }
  read_if_due(known, now_ns);
}

void AddressSpaces::read_if_due(Known& known, std::uint64_t now_ns) {
  if (!known.alive || !known.own_image) return;
  const bool is_due = known.read_ns == 0 ||
                      now_ns - known.read_ns >= kFirstReadsNs + (known.read_ns - known.image_ns);
  if (is_due) read(known, now_ns);
}

void AddressSpaces::keep_up(std::uint64_t now_ns) {
  if (now_ns - kept_up_ns_ < kFirstReadsNs) return;
  kept_up_ns_ = now_ns;
  for (auto& [id, known] : known_) read_if_due(known, now_ns);
}

bool AddressSpaces::knows(std::uint64_t process_id, std::uint64_t execs) const {
  const auto found = known_.find(process_id);
  return found != known_.end() && found->second.execs == execs;
}

const AddressSpace* AddressSpaces::at(const CopySample& sample) {
  const auto found = known_.find(sample.process_id);
  if (found == known_.end() || found->second.execs != sample.execs) return nullptr;
  Known& known = found->second;
  const auto has_all = [&](const AddressSpace* space) {
    return space != nullptr && space->find(sample[Register::instruction_pointer]) != nullptr &&
           space->find(sample.address) != nullptr;
  };
  if (known.alive && !has_all(known.space.get())) {
    const std::uint64_t now = monotonic_ns();
    if (known.reads.is_due(now)) read(known, now);
  }
  const bool was_before = !has_all(known.space.get()) && has_all(known.space_before.get());
  return was_before ? known.space_before.get() : known.space.get();
}

const Binary* AddressSpaces::perf_map_of(const CopySample& sample) const {
  auto found = known_.find(sample.process_id);
  // Its parent may have generated all its code just before the fork.
  const std::uint64_t since_ns = found == known_.end() ? 0 : found->second.image_ns;
  for (; found != known_.end(); found = known_.find(found->second.parent_id)) {
    const auto& [id, known] = *found;
    if (const Binary* map = binaries_->perf_map(id, known.pid, known.owner, since_ns)) return map;
    if (known.own_image) break;
  }
  return nullptr;
}

void AddressSpaces::forget_ended() {
  std::set<std::uint64_t> needed;
  // Parents come after their children, whose ids are greater.
  for (auto next = known_.end(); next != known_.begin();) {
    const auto entry = std::prev(next);
    auto& [id, known] = *entry;
    if (known.had_ended) {
      if (!needed.contains(id)) {
        last_forgotten_ = std::max(last_forgotten_, id);
        next = known_.erase(entry);
        continue;
      }
      known.space.reset();
      known.space_before.reset();
      known.read.clear();
    }
    known.had_ended = !known.alive;
    if (!known.own_image) needed.insert(known.parent_id);
    next = entry;
  }
  const auto is_gone = [](const auto& entry) { return entry.second.expired(); };
  std::erase_if(spaces_, is_gone);
  std::erase_if(unwinders_, is_gone);
}

}  // namespace cowshed::cow
