#include <algorithm>
#include <fmt/format.h>

#include <cowshed/cow/causes/object_cause.h>
#include <cowshed/cow/causes/store_sites.h>
#include <cowshed/cow/language.h>
#include <cowshed/cow/measurement.h>
#include <cowshed/cow/symbolize/syscall_names.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kObjectAlignment = 16;
// A function may write 128 bytes below the stack pointer.  Frames are near up to 64 KiB above it.
constexpr std::uint64_t kRedZone = 128;
constexpr std::uint64_t kNearFrames = 64 << 10;
// memcpy may store the last or the aligned vectors of a block first.  So its first write to a page
// may be this far from the page's beginning.
constexpr std::uint64_t kBlockBegin = 512;
constexpr std::uint64_t kStringStep = arch::kCacheLine;  // of a repeated instruction

std::string system_call_text(const std::optional<std::uint64_t>& number) {
  if (!number) return {};
  const std::string name = system_call_name(*number);
  return name.empty() ? fmt::format("system call {}", *number) : name + "(2)";
}

// The interpreter whose code stores, or calls the library that does.
Language writer_of(const CodeStack& code) {
  for (const CodeAddress& address : code.addresses) {
    if (address.binary == nullptr) continue;
    const std::string& path = address.binary->path;
    const bool is_first = &address == code.addresses.data();
    if (is_first && (is_c_library(path) || is_dynamic_linker(path))) return Language::native;
    if (address.binary->interpreter != Language::native) return address.binary->interpreter;
  }
  return Language::native;
}

// Whether the store counts in a control block with a vtable in its own binary.
bool counts_owners(const ObservedStore& observed, const CodeStack& code) {
  if (code.addresses.empty() || code.addresses.front().binary == nullptr) return false;
  const CodeAddress& store = code.addresses.front();
  const std::uint64_t loaded_at = observed.sample[Register::instruction_pointer] - store.address;
  return is_control_block(observed, loaded_at + store.binary->begin, loaded_at + store.binary->end);
}

void tally(StoreSite& site, const CopySample& sample) {
  ++site.samples;
  site.copies += sample.copies;
  const std::uint64_t object =
      sample.address - static_cast<std::uint64_t>(site.store.displacement.value_or(0));
  if (object % kObjectAlignment == 0) ++site.aligned;
  const std::uint64_t step = site.store.remaining ? kStringStep : site.store.width;
  if (sample.address % kPageSize < step) ++site.at_page_begin;
  if (sample.address % kPageSize < kBlockBegin) ++site.near_page_begin;
  if (sample.address % kPageSize + site.store.width == kPageSize) ++site.at_page_end;
  if (sample.copy_class == CopyClass::file) ++site.in_file;
  if (sample.address - (sample[Register::stack_pointer] - kRedZone) < kRedZone + kNearFrames)
    ++site.near_stack_pointer;
}

}  // namespace

StoreSites::SiteKey StoreSites::key_of(const Kernel& kernel, const CodeStack& code) {
  SiteKey key{kernel, {}, {}};
  std::copy_n(code.addresses.begin(), std::min(kCallers, code.addresses.size()), key.code.begin());
  return key;
}

StoreInstruction StoreSites::decode(const CopySample& sample, const CodeStack& code) {
  const CodeAddress at = code.addresses.empty() ? CodeAddress() : code.addresses.front();
  if (const auto found = decoded_.find(at); found != decoded_.end()) return found->second;
  StoreInstruction store =
      decoder_.decode(std::span(sample.instruction).first(sample.instruction_bytes),
                      sample.registers, sample.address, sample.is_32_bit);
  const bool is_same_everywhere = at.binary != nullptr && !at.binary->is_generated;
  if (is_same_everywhere && store.kind != StoreKind::unknown && decoded_.size() < kMostSites)
    decoded_.emplace(at, store);
  return store;
}

std::string_view StoreSites::add(const CopySample& sample, const CodeStack& code) {
  SiteKey key = key_of(sample.user_mode ? Kernel() : Kernel(sample.system_call), code);
  StoreInstruction store;
  bool is_owners = false;
  bool is_data = false;
  std::optional<std::uint64_t> vtable;
  if (sample.user_mode) store = decode(sample, code);
  if (sample.user_mode && !sample.is_32_bit) {  // the objects that are known have words of 64 bits
    const ObservedStore observed{sample, store};
    const Language writer = writer_of(code);
    key.object_cause = object_cause(writer, observed);
    is_owners = counts_owners(observed, code);
    vtable = vtable_of_control_block(observed);
    is_data = is_programs_data(writer, observed);
  }
  auto& sites = processes_[sample.process_id];
  if (sites_ >= kMostSites && !sites.contains(key)) key = {};
  const auto [entry, is_new] = sites.try_emplace(key);
  if (is_new) ++sites_;
  StoreSite& site = entry->second;
  site.object_cause = key.object_cause;
  if (!sample.user_mode) site.system_call = system_call_text(sample.system_call);
  else if (is_new || site.store.kind == StoreKind::unknown) site.store = std::move(store);
  if (is_owners) ++site.control_blocks;
  if (is_data) ++site.programs_data;
  if (vtable && vtable == site.last_vtable) ++site.like_the_last;
  site.last_vtable = vtable;
  tally(site, sample);
  return site.object_cause;
}

void StoreSites::merge(std::uint64_t process_id, std::uint64_t into) {
  const auto from = processes_.extract(process_id);
  if (from.empty()) return;
  Sites& sites = processes_[into];
  for (const auto& [key, site] : from.mapped()) {
    SiteKey anywhere = key;
    for (CodeAddress& address : anywhere.code)
      if (address.binary == nullptr) address = {};
    const auto [entry, is_new] = sites.try_emplace(anywhere, site);
    if (is_new) continue;
    entry->second += site;
  }
}

std::size_t StoreSites::release_sites_of(const Binary* binary, CounterField field) {
  if (binary == nullptr || binary->is_generated) return 0;
  const auto [entry, is_new] = releases_.try_emplace(binary);
  if (is_new) entry->second = binary->reader->release_sites(binary->id);
  const auto found = entry->second.find(field);
  return found == entry->second.end() ? 0 : found->second;
}

std::string_view StoreSites::Causes::of(const Kernel& kernel, const CodeStack& code,
                                        std::string_view object_cause) const {
  SiteKey key = key_of(kernel, code);
  key.object_cause = object_cause;
  auto found = of_sites_.find(key);
  if (found == of_sites_.end()) found = of_sites_.find(SiteKey());  // there were too many sites
  return found == of_sites_.end() ? std::string_view() : found->second;
}

StoreSites::Causes StoreSites::causes(std::uint64_t process_id, const std::vector<AtExit>& at_exit,
                                      Symbolizer& symbols) {
  const auto found = processes_.find(process_id);
  if (found == processes_.end()) return {};
  std::map<SiteKey, SampleSum> ending;
  for (const AtExit& each : at_exit) ending[key_of(each.kernel, each.code)] += each.sum;
  std::vector<StoreSite> sites;
  sites.reserve(found->second.size());
  std::map<std::string, const Binary*> binaries;  // by module
  for (const auto& [key, tallied] : found->second) {
    StoreSite& site = sites.emplace_back(tallied);
    SiteKey any_object = key;
    any_object.object_cause = {};
    if (const auto part = ending.find(any_object); part != ending.end()) {
      site.at_exit = {std::min(part->second.samples, site.samples),
                      std::min(part->second.copies, site.copies)};
      part->second -= site.at_exit;
    }
    for (const CodeAddress& address : key.code) {
      if (address == CodeAddress{}) break;
      for (const Frame& frame : symbols.frames(address)) {
        if (site.functions.empty()) {
          site.module = frame.module;
          if (address.binary != nullptr) site.interpreter = address.binary->interpreter;
          site.address = frame.address;
          site.is_generated = address.binary == nullptr || address.binary->is_generated;
          binaries[site.module] = address.binary;
        }
        site.functions.push_back(frame.function);
      }
    }
  }
  FoundCauses causes = find_causes(sites, [&](const std::string& module, CounterField field) {
    return release_sites_of(binaries[module], field);
  });
  Causes result;
  result.patterns = std::move(causes.patterns);
  for (auto cause = causes.of_sites.begin(); const auto& [key, site] : found->second)
    result.of_sites_.emplace(key, *cause++);
  return result;
}

}  // namespace cowshed::cow
