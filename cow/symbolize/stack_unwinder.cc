#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <iterator>

#include <cowshed/cow/symbolize/stack_unwinder.h>

namespace cowshed::cow {
namespace {

constexpr std::size_t kMostKnown = 4000;
constexpr std::size_t kMostOfOne = 32;  // stacks of one instruction

// Code, or the read-only data that the linker put around it.
bool belongs_to_code(const Mapping& mapping) {
  const bool is_file = mapping.inode != 0 && mapping.path.starts_with('/');
  return is_file || mapping.path == CodeReader::kVdso;
}

std::optional<std::uint64_t> word_at(const std::vector<std::uint8_t>& stack, std::uint64_t depth) {
  std::uint64_t word = 0;
  if (stack.size() < sizeof word || depth > stack.size() - sizeof word) return std::nullopt;
  std::memcpy(&word, stack.data() + depth, sizeof word);
  return word;
}

// Where in the stack the frame pointer points to, if it is one.
std::uint64_t frame_depth(const CopySample& sample) {
  constexpr std::uint64_t kNowhere = CodeReader::Location::kNotOnStack;
  const std::uint64_t depth = sample[Register::frame_pointer] - sample[Register::stack_pointer];
  return depth < sample.stack.size() ? depth : kNowhere;
}

}  // namespace

StackUnwinder::StackUnwinder(const std::vector<Mapping>& mappings, pid_t pid, BinaryCache& binaries)
    : reader_(&binaries.reader()) {
  for (const Mapping& mapping : mappings)
    if (mapping.executable) code_.push_back({mapping.begin, mapping.end, !mapping.is_memory()});
  layout_ = binaries.new_layout();
  modules_ = modules_of(mappings, pid, binaries);
  reader_->add_layout(layout_, modules_);
  for (const CodeReader::Module& module : modules_) {
    const Binary& binary = *binaries_.at(module.binary);
    if (!binary.python) continue;
    python_ = binary.python;
    python_->runtime += module.begin - binary.begin;
  }
}

const std::string& StackUnwinder::name_at(std::uint64_t address) {
  if (names_.size() >= kMostKnown) names_.clear();
  const auto [entry, is_new] = names_.try_emplace(address);
  if (!is_new) return entry->second;
  for (const CodeReader::Module& module : modules_) {
    if (address < module.begin || address >= module.end) continue;
    const std::uint64_t linked = address - module.begin + binaries_.at(module.binary)->begin;
    entry->second = reader_->name_at(module.binary, linked);
    break;
  }
  return entry->second;
}

StackUnwinder::~StackUnwinder() { reader_->remove_layout(layout_); }

// The mappings of a file are neighbours in the list.
std::vector<CodeReader::Module> StackUnwinder::modules_of(const std::vector<Mapping>& mappings,
                                                          pid_t pid, BinaryCache& binaries) {
  std::vector<CodeReader::Module> modules;
  for (auto at = mappings.begin(); at != mappings.end();) {
    if (!belongs_to_code(*at)) {
      ++at;
      continue;
    }
    const auto first = at;
    const auto is_same = [&](const Mapping& each) {
      return each.path == first->path && each.inode == first->inode && each.device == first->device;
    };
    std::uint64_t end = at->end;
    auto code = mappings.end();
    for (; at != mappings.end() && is_same(*at); ++at) {
      if (at->executable) code = at;
      end = at->end;
    }
    if (code == mappings.end()) continue;
    const Binary* binary = binaries.open(*code, pid);
    if (!binary->is_readable && first->is_memory()) continue;  // generated code
    modules.push_back({binary->id, first->begin, end});
    binaries_[binary->id] = binary;
  }
  return modules;
}

std::string StackUnwinder::code_layout(const std::vector<Mapping>& mappings) {
  std::string text;
  for (const Mapping& mapping : mappings) {
    if (mapping.executable) {
      fmt::format_to(std::back_inserter(text), "{:x}-{:x} {:x} {} {}\n", mapping.begin, mapping.end,
                     mapping.device, mapping.inode, mapping.path);
    }
  }
  return text;
}

const StackUnwinder::Code* StackUnwinder::code_at(std::uint64_t address) const {
  const auto after = std::ranges::upper_bound(code_, address, {}, &Code::begin);
  return after != code_.begin() && address < std::prev(after)->end ? &*std::prev(after) : nullptr;
}

CodeAddress StackUnwinder::known_address(const CodeReader::Location& location) const {
  const auto binary = binaries_.find(location.binary);
  const Code* code = code_at(location.pc);
  // libdwfl assigns the gap behind a module, which may have generated code, to the module.
  if (binary == binaries_.end() || code == nullptr || !code->of_file) return {nullptr, location.pc};
  return {binary->second, location.address};
}

StackUnwinder::Walked StackUnwinder::walk(const CopySample& sample) {
  const CodeReader::Walk walk = reader_->walk(layout_, sample);
  Walked result;
  result.stack.truncated = walk.truncated;
  for (const CodeReader::Location& location : walk.locations)
    result.stack.addresses.push_back(known_address(location));
  result.callers.assign(std::next(walk.locations.begin()), walk.locations.end());
  result.stack_bytes = sample.stack.size();
  result.frame_depth = frame_depth(sample);
  return result;
}

bool StackUnwinder::is_same(const Walked& known, const CopySample& sample) {
  // Another sample may have what this one lacked.
  if (known.stack.truncated &&
      (sample.stack.size() > known.stack_bytes || frame_depth(sample) != known.frame_depth)) {
    return false;
  }
  return std::ranges::all_of(known.callers, [&](const auto& caller) {
    const auto word = word_at(sample.stack, caller.depth);
    return word && (*word == caller.pc || *word == caller.pc + 1);
  });
}

const CodeStack& StackUnwinder::unwind(const CopySample& sample) {
  if (walks_ >= kMostKnown) {
    known_.clear();
    walks_ = 0;
  }
  std::vector<Walked>& known = known_[sample[Register::instruction_pointer]];
  const auto found = std::find_if(known.rbegin(), known.rend(),
                                  [&](const Walked& each) { return is_same(each, sample); });
  if (found != known.rend()) {
    std::rotate(std::prev(found.base()), found.base(), known.end());
    return known.back().stack;
  }
  if (known.size() == kMostOfOne) known.erase(known.begin());
  else ++walks_;
  return known.emplace_back(walk(sample)).stack;
}

}  // namespace cowshed::cow
