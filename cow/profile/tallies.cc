#include <algorithm>
#include <fmt/format.h>
#include <utility>

#include <cowshed/cow/profile/tallies.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kMostAddresses = 1 << 20;
constexpr std::size_t kMostBlocks = 1 << 18;
constexpr std::size_t kMostTypes = 1 << 16;
constexpr std::size_t kLongestType = 256;
constexpr const char* kFurtherTypes = "further types";

// Whether the page is .bss: the program headers of the file that `last` maps load it.  It is in
// anonymous memory behind `last`.  Memory that mmap() puts there later becomes the same mapping.
bool is_bss(const AddressSpace& space, const Mapping* last, const CopySample& sample,
            BinaryCache& binaries) {
  const Mapping* first = last;
  while (first != space.mappings.data() && (first - 1)->path == last->path) --first;
  const Binary* binary = binaries.open(*last, sample.pid);
  return sample.address - first->begin < binary->end - binary->begin / kPageSize * kPageSize;
}

// Returns MappingCopies::name.
std::string mapping_name(const AddressSpace& space, const CopySample& sample,
                         BinaryCache& binaries) {
  if (!sample.arena.empty()) return std::string(kArena) + sample.arena;
  const Mapping* mapping = space.find(sample.address);
  if (mapping == nullptr) return "unknown";
  if (mapping->is_settled()) return "heap, settled";
  if (!mapping->path.empty()) return std::string(mapping->file_path());
  const auto has = [&](std::uint64_t address) {
    return address >= mapping->begin && address < mapping->end;
  };
  // An access beyond a stack fails beside the stack pointer.
  const bool is_of_stack = sample.failure == AccessFailure::none
                               ? sample.is_of_stack
                               : has(sample[Register::stack_pointer]);
  if (is_of_stack) return "thread stack";
  if (mapping != space.mappings.data()) {
    const Mapping* before = mapping - 1;
    if (before->end == mapping->begin && before->has_file() && before->is_private &&
        is_bss(space, before, sample, binaries)) {
      return std::string(before->file_path()) + " .bss";
    }
  }
  return "anonymous";
}

// Returns the type of the object if the write was to what the interpreter itself keeps in each: the
// collector's links, the reference count, or a cached hash.
std::string written_type(const CopySample& sample) {
  constexpr std::int32_t kLinks = -16;
  constexpr std::int32_t kHeadBytes = 32;
  const bool is_at_head = sample.object_offset >= kLinks && sample.object_offset < kHeadBytes;
  return is_at_head ? sample.object_type.substr(0, kLongestType) : std::string();
}

// Whether the line of Python that the thread was at is not known.
bool lacks_python(const CopySample& sample) {
  constexpr std::size_t kDeep = 64;  // as many as are read of a deep stack
  return (sample.is_python_cut && sample.python.size() < kDeep) ||
         std::ranges::find(sample.python, nullptr, &PythonFrame::code) != sample.python.end();
}

// Returns the sum of `key`.  Once there are `most` keys in all, a new one becomes `other`.
template <class Key, class Sum>
Sum& bounded(std::map<Key, Sum>& sums, Key key, Key other, std::size_t& keys, std::size_t most) {
  if (keys >= most && !sums.contains(key)) key = std::move(other);
  const auto [sum, is_new] = sums.try_emplace(std::move(key));
  if (is_new) ++keys;
  return sum->second;
}

// Shortens a new stack to its innermost frame; if that is new, too, to no frame.
void shorten_new(Tally::Stack& stack, const Tally& tally) {
  if (tally.stacks.contains(stack)) return;
  stack.code.truncated = true;
  stack.code.addresses.resize(1);
  if (stack.python.size() > 1) stack.python.resize(1);
  if (tally.stacks.contains(stack)) return;
  stack.code.addresses = {CodeAddress{}};
  stack.python.clear();
}

// Drops addresses without a binary: they differ in each process, so the sums would only grow.
Tally::Stack anywhere(Tally::Stack stack) {
  for (CodeAddress& address : stack.code.addresses)
    if (address.binary == nullptr) address = {};
  return stack;
}

void add_to(Tally& sum, const Tally& more) {
  sum.all += more.all;
  if (!sum.fork) sum.fork = more.fork;
  if (sum.failures.empty() && !more.failures.empty()) sum.failures = {more.failures.front()};
  for (const auto& [stack, samples] : more.stacks) {
    Tally::StackSum& stack_sum = sum.stacks[anywhere(stack)];
    stack_sum.all += samples.all;
    stack_sum.processes += samples.processes;
    for (const auto& [written, part] : samples.parts) stack_sum.parts[written] += part;
  }
  sum.python_unread += more.python_unread;
  for (const auto& [type, samples] : more.types) sum.types[type] += samples;
  for (const auto& [block, samples] : more.blocks)
    sum.blocks[{Tally::Block::kAnywhere, block.mapping}] += samples;
}

}  // namespace

Tally Tally::held(const HeldPages& its) const {
  Tally result;
  if (pages.empty()) result = *this;
  result.is_forked = its.is_forked;
  if (pages.empty()) return result;
  result.python_unread = python_unread;
  result.fork = fork;
  NewPages held = pages;
  held.settle();
  std::uint64_t given = 0;
  held.visit(its.at_most, [&](const NewPages::Piece& piece) {
    if (given + piece.pages <= its.given) {
      given += piece.pages;
      return;
    }
    const SampleSum one{1, piece.pages};
    Stack stack = *piece.stack;
    if (stack.page == NewPage::held)
      stack.page = piece.gone != NewPages::kNever ? NewPage::given_back : piece.state;
    StackSum& sum = result.stacks[std::move(stack)];
    sum.all += one;
    sum.processes = 1;
    const auto block = blocks.lower_bound({piece.address / Block::kBytes, ""});
    result.blocks[block == blocks.end() ? Block() : block->first] += one;
    result.all += one;
  });
  return result;
}

Tally::Stack Tallies::stack_of(const CopySample& sample, const AddressSpace* space) {
  Tally::Stack stack;
  if (!sample.user_mode) stack.kernel.emplace(sample.system_call);
  for (const PythonFrame& call : sample.python)
    stack.python.push_back(python_.frame(call, binaries_->reader()));
  if (space == nullptr) {
    stack.code.addresses.emplace_back();  // one for all unknown addresses, which may be very many
    stack.code.truncated = stack.python.empty() || sample.is_python_cut;
    return stack;
  }
  stack.code = space->unwinder->unwind(sample);
  if (!stack.python.empty()) stack.code.truncated = false;
  if (sample.is_python_cut) stack.code.truncated = true;
  for (CodeAddress& each : stack.code.addresses) {
    if (each.binary != nullptr) continue;
    const Mapping* mapping = space->find(each.address);
    if (mapping != nullptr && !mapping->is_memory()) continue;
    if (const Binary* map = spaces_->perf_map_of(sample)) each.binary = map;
    else if (mapping != nullptr) each.binary = binaries_->generated_code();
  }
  return stack;
}

void Tallies::add_failure(const CopySample& sample) {
  constexpr std::size_t kMostFailures = 4;
  std::vector<Tally::Failure>& failures = tallies_[sample.process_id].failures;
  if (failures.size() == kMostFailures) {
    if (sample.is_handled) return;
    failures.pop_back();
  }
  const AddressSpace* space = spaces_->at(sample);
  const Mapping* mapping = space == nullptr ? nullptr : space->find(sample.address);
  FailedAccess access;
  access.address = sample.address;
  if (mapping != nullptr) {
    const std::string_view arena = arena_name(*mapping);
    access.mapping = arena.empty() ? mapping_name(*space, sample, *binaries_)
                                   : fmt::format("{}{}", kArena, arena);
  }
  access.reason = sample.failure;
  access.handled = sample.is_handled;
  failures.push_back({std::move(access), stack_of(sample, space)});
}

void Tallies::add_fork(const CopySample& fork) {
  if (const AddressSpace* space = spaces_->at(fork))
    tallies_[fork.process_id].fork = stack_of(fork, space);
}

// What the process had before its exec is gone.
Tally& Tallies::tally_of_program(const CopySample& sample) {
  Tally& tally = tallies_[sample.process_id];
  if (std::exchange(tally.execs, sample.execs) == sample.execs) return tally;
  for (const auto& [stack, sum] : tally.stacks)
    addresses_ -= stack.code.addresses.size() + stack.python.size();
  blocks_ -= tally.blocks.size();
  tally = Tally();
  tally.execs = sample.execs;
  return tally;
}

void Tallies::add(const CopySample& sample, StoreSites* stores) {
  const bool is_fresh = sample.copy_class == CopyClass::fresh;
  Tally& tally = is_fresh ? tally_of_program(sample) : tallies_[sample.process_id];
  const SampleSum one{1, sample.copies};
  tally.all += one;
  const AddressSpace* space = spaces_->at(sample);
  Tally::Stack stack = stack_of(sample, space);
  Tally::Block block;
  if (space != nullptr)
    block = {sample.address / Tally::Block::kBytes, mapping_name(*space, sample, *binaries_)};
  if (is_fresh) {
    stack.page = sample.is_of_stack ? NewPage::of_stack : NewPage::held;
    stack.descriptor = sample.descriptor;
  }
  const Tally::Stack& counted = count_stack(std::move(stack), sample, stores, tally);
  bounded(tally.blocks, std::move(block), {}, blocks_, kMostBlocks) += one;
  if (is_fresh) {
    if (sample.missed > 0) add_missed(sample, counted, tally);
    tally.pages.add(&counted, sample.address, sample.copies, sample.risen_bytes / kPageSize);
    tally.last_new = &counted;
  }
  if (lacks_python(sample)) ++tally.python_unread;
  if (std::string type = written_type(sample); !type.empty())
    bounded(tally.types, std::move(type), std::string(kFurtherTypes), types_, kMostTypes) += one;
}

// New memory before a sample: of its line if that also made the last one, else of no line.
void Tallies::add_missed(const CopySample& sample, const Tally::Stack& counted, Tally& tally) {
  const std::uint64_t held = sample.risen_bytes / kPageSize;
  CopySample missed;
  missed.copy_class = CopyClass::fresh;
  missed.copies = sample.missed;
  Tally::Stack stack = tally.last_new == &counted ? counted : stack_of(missed, nullptr);
  if (tally.last_new != &counted) stack.page = NewPage::missed;
  tally.all += {1, missed.copies};
  tally.pages.add(&count_stack(std::move(stack), missed, nullptr, tally), sample.address,
                  missed.copies, held - std::min(held, sample.copies), true);
}

const Tally::Stack& Tallies::count_stack(Tally::Stack stack, const CopySample& sample,
                                         StoreSites* stores, Tally& tally) {
  if (addresses_ >= kMostAddresses) shorten_new(stack, tally);
  const auto [counted, is_new] = tally.stacks.try_emplace(std::move(stack));
  auto& [key, sum] = *counted;
  if (is_new) {
    addresses_ += key.code.addresses.size() + key.python.size();
    sum.processes = 1;
  }
  const SampleSum one{1, sample.copies};
  sum.all += one;
  if (sample.copy_class == CopyClass::fresh) return key;
  Tally::Written written{{}, written_type(sample)};
  if (stores != nullptr) written.object_cause = stores->add(sample, key.code);
  bounded(sum.parts, std::move(written), {}, addresses_, kMostAddresses) += one;
  return key;
}

void Tallies::look(std::uint64_t process_id, const NewPages::Look& look) {
  if (const auto found = tallies_.find(process_id); found != tallies_.end())
    found->second.pages.look(look);
}

void Tallies::end(std::uint64_t process_id, std::uint64_t held) {
  if (const auto found = tallies_.find(process_id); found != tallies_.end())
    found->second.pages.end(held);
}

void Tallies::merge(std::uint64_t process_id, std::uint64_t into) {
  const auto from = tallies_.extract(process_id);
  if (from.empty()) return;
  Tally& sum = tallies_[into];
  const Tally before = std::exchange(sum, {});
  types_ -= before.types.size() + from.mapped().types.size();
  add_to(sum, before.held({.at_most = true}));
  add_to(sum, from.mapped().held({.at_most = true}));
  types_ += sum.types.size();
}

}  // namespace cowshed::cow
