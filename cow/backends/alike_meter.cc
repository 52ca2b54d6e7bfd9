#include <algorithm>
#include <cmath>
#include <map>
#include <span>
#include <tuple>
#include <utility>

#include <cowshed/base/clock.h>
#include <cowshed/cow/backends/alike_meter.h>
#include <cowshed/cow/proc/process_pages.h>

namespace cowshed::cow {
namespace {

constexpr std::uint64_t kFirstRoundNs = 300'000'000;  // after the begin
constexpr std::uint64_t kLongestPauseNs = 10'000'000'000;
constexpr std::uint64_t kStepsAtOnceNs = 2'500'000;
constexpr std::uint64_t kPagesOfRound = 8192;  // 32 MiB
constexpr std::uint64_t kMostPages = std::uint64_t{2} << 20U;
constexpr std::size_t kPagesOfStep = 1000;
constexpr std::size_t kNone = ~std::size_t{0};

// Another number when the memory of any has changed.
std::uint64_t changes_of(const std::vector<AlikeProcess>& running) {
  std::uint64_t sum = running.size();
  for (const AlikeProcess& each : running) sum += each.id * 31 + each.changes;
  return sum;
}

// Of the address of a page, the same in each round and process.
std::uint64_t drawn(std::uint64_t page) {
  std::uint64_t mixed = page * 0x9e3779b97f4a7c15U;  // splitmix64
  mixed = (mixed ^ (mixed >> 30U)) * 0xbf58476d1ce4e5b9U;
  mixed = (mixed ^ (mixed >> 27U)) * 0x94d049bb133111ebU;
  return mixed ^ (mixed >> 31U);
}

struct Member {
  std::uint64_t id = 0;
  pid_t pid = 0;
  std::size_t parent = kNone;  // its number
  bool is_parent = false;
  PageRanges own = {};
  PageRanges shared = {};  // of a parent
  PageRanges wanted = {};  // where its children have pages of their own
  // What of the round is found of it, in pages.
  std::uint64_t compared = 0;
  std::uint64_t zeros = 0;
  double same_address = 0;
  double any_address = 0;
  std::uint64_t unchanged = 0;
};

struct Page {
  std::uint64_t hash;
  std::uint64_t number;  // its address in pages
  std::uint32_t member;
  bool is_shared;  // of a parent, to compare its children's with

  auto order() const { return std::tuple(hash, number, member); }
};
using Pages = std::vector<Page>;
using PagesAt = std::span<const Page>;

// Visits the pages in groups of the same `key`, by which they are sorted.
void for_groups(PagesAt pages, std::uint64_t Page::* key, auto visit) {
  for (auto begin = pages.begin(); begin != pages.end();) {
    const auto end = std::find_if_not(begin, pages.end(),
                                      [&](const Page& each) { return each.*key == (*begin).*key; });
    visit(PagesAt(begin, end));
    begin = end;
  }
}

// Of pages that are alike at one address, by member.
void add_same_address(PagesAt pages, std::vector<Member>& members) {
  const auto own = static_cast<double>(std::ranges::count(pages, false, &Page::is_shared));
  for (const Page& page : pages) {
    if (page.is_shared) continue;
    Member& member = members[page.member];
    ++member.compared;
    if (page.hash == PageHasher::kZeros) ++member.zeros;
    else member.same_address += (own - 1) / own;
    if (member.parent == kNone) continue;
    if (std::ranges::binary_search(pages, member.parent, {}, &Page::member)) ++member.unchanged;
  }
}

// Of pages that are alike at any address.
void add_any_address(PagesAt pages, std::vector<Member>& members) {
  const auto own = static_cast<double>(std::ranges::count(pages, false, &Page::is_shared));
  const auto is_other = [&](const Page& page) {
    return !page.is_shared && page.member != pages.front().member;
  };
  if (pages.front().hash == PageHasher::kZeros || std::ranges::none_of(pages, is_other)) return;
  for (const Page& page : pages)
    if (!page.is_shared) members[page.member].any_address += (own - 1) / own;
}

std::uint64_t bytes_of(double pages) {
  return static_cast<std::uint64_t>(std::llround(pages)) * kPageSize;
}

AlikeMemory result_of(const Member& member, bool is_sample) {
  const std::uint64_t pages = is_sample ? member.own.bytes() / kPageSize : member.compared;
  const auto compared = static_cast<double>(std::max<std::uint64_t>(member.compared, 1));
  const double scale = static_cast<double>(pages) / compared;
  AlikeMemory result;
  result.private_bytes = pages * kPageSize;
  result.zero_bytes = bytes_of(static_cast<double>(member.zeros) * scale);
  result.same_address_bytes = bytes_of(member.same_address * scale);
  if (!is_sample) result.any_address_bytes = bytes_of(member.any_address);
  if (member.parent != kNone)
    result.unchanged_bytes = bytes_of(static_cast<double>(member.unchanged) * scale);
  if (is_sample) result.sampled_part = 1 / std::max(scale, 1.0);
  result.sampled_ns = monotonic_ns();
  return result;
}

// Adds the pages of `ranges` whose address is among `part` of all.
void draw(const PageRanges& ranges, double part, bool is_shared,
          std::vector<std::pair<PageRange, bool>>& to) {
  const double limit = part * 0x1p64;
  for (const PageRange& range : ranges.ranges()) {
    if (part >= 1) to.emplace_back(range, is_shared);
    for (std::uint64_t at = range.begin; part < 1 && at < range.end; at += kPageSize)
      if (static_cast<double>(drawn(at / kPageSize)) < limit)
        to.emplace_back(PageRange{at, at + kPageSize}, is_shared);
  }
}

}  // namespace

struct AlikeMeter::Round {
  std::vector<Member> members = {};
  std::uint64_t changes = 0;
  bool is_whole = false;   // as far as kMostPages allow
  std::size_t found = 0;   // of the members, those whose pages are known
  std::size_t hashed = 0;  // those all of whose pages are hashed
  double part = 1;         // of the pages
  // Of the member that is being hashed, in reverse order; and whether they are shared.
  std::vector<std::pair<PageRange, bool>> left = {};
  FileDescriptor memory = {};
  Pages pages = {};

  void find_pages(const ProcFiles& proc, Member& member) {
    const auto mappings = proc.maps(member.pid);
    auto all = mappings ? ProcessPages::open(proc, member.pid)
                        : Expected<ProcessPages>(tl::make_unexpected(mappings.error()));
    if (!all) return;
    for (const Mapping& mapping : *mappings) {
      if (!mapping.can_be_copied()) continue;
      const auto here = all->anonymous_pages_by_owner(mapping);
      if (!here) return;
      for (const PageRange& range : here->own.ranges()) member.own.append(range);
      if (!member.is_parent) continue;
      for (const PageRange& range : here->shared.ranges()) member.shared.append(range);
    }
    if (member.parent == kNone) return;
    PageRanges& wanted = members[member.parent].wanted;
    wanted = unite(wanted, member.own);
  }

  void choose_part() {
    std::uint64_t bytes = 0;
    for (Member& each : members) {
      each.shared = intersect(each.shared, std::exchange(each.wanted, {}));
      bytes += each.own.bytes() + each.shared.bytes();
    }
    const auto most = static_cast<double>((is_whole ? kMostPages : kPagesOfRound) * kPageSize);
    part = std::min(1.0, most / static_cast<double>(std::max<std::uint64_t>(bytes, 1)));
  }

  void begin_hashing(const ProcFiles& proc, const Member& member) {
    auto opened = proc.open(member.pid, "mem");
    if (!opened) return;
    memory = std::move(*opened);
    draw(member.own, part, false, left);
    draw(member.shared, part, true, left);
    std::ranges::reverse(left);
  }

  // At most `most` pages.
  std::vector<PageRange> take_some(std::size_t most, std::vector<bool>& are_shared) {
    std::vector<PageRange> some;
    while (most > 0 && !left.empty()) {
      auto& [range, is_shared] = left.back();
      const std::uint64_t end = std::min(range.end, range.begin + most * kPageSize);
      some.push_back({range.begin, end});
      are_shared.push_back(is_shared);
      most -= (end - range.begin) / kPageSize;
      range.begin = end;
      if (range.begin == range.end) left.pop_back();
    }
    return some;
  }

  void add(const std::vector<PageRange>& ranges, const std::vector<bool>& are_shared,
           const std::vector<std::uint64_t>& hashes) {
    auto hash = hashes.begin();
    for (std::size_t i = 0; i < ranges.size(); ++i)
      for (std::uint64_t at = ranges[i].begin; at < ranges[i].end; at += kPageSize, ++hash)
        if (*hash != PageHasher::kUnread)
          pages.push_back(
              {*hash, at / kPageSize, static_cast<std::uint32_t>(hashed), are_shared[i]});
  }

  void compare() {
    std::ranges::sort(pages, {}, &Page::order);
    for_groups(pages, &Page::hash, [&](PagesAt alike) {
      if (part >= 1) add_any_address(alike, members);
      for_groups(alike, &Page::number, [&](PagesAt at) { add_same_address(at, members); });
    });
  }
};

// Of processes that all rest, the last round holds.
bool AlikeMeter::is_due(const std::vector<AlikeProcess>& running) const {
  if (running.size() < 2) return false;
  if (is_wanted_) return true;
  const std::uint64_t now = monotonic_ns();
  return now >= next_ns_ && now >= begun_ns_ + kFirstRoundNs && budget_.is_left(now) &&
         changes_of(running) != compared_changes_;
}

void AlikeMeter::begin(const std::vector<AlikeProcess>& running) {
  round_ = std::make_shared<Round>();
  round_->is_whole = std::exchange(is_wanted_, false);
  round_->changes = changes_of(running);
  std::map<std::uint64_t, std::size_t> numbers;
  for (const AlikeProcess& each : running) {
    if (refused_.contains(each.id)) continue;
    numbers[each.id] = round_->members.size();
    round_->members.push_back({.id = each.id, .pid = each.pid});
  }
  for (const AlikeProcess& each : running) {
    const auto its = numbers.find(each.id);
    const auto parent = numbers.find(each.parent_id);
    if (its == numbers.end() || parent == numbers.end()) continue;
    round_->members[its->second].parent = parent->second;
    round_->members[parent->second].is_parent = true;
  }
}

bool AlikeMeter::go_on() {
  Round& round = *round_;
  if (round.found < round.members.size()) {
    round.find_pages(proc_, round.members[round.found]);
    if (++round.found == round.members.size()) round.choose_part();
  } else if (!round.left.empty()) {
    hash_some();
    if (round.left.empty()) ++round.hashed;
  } else if (round.hashed < round.members.size()) {
    round.begin_hashing(proc_, round.members[round.hashed]);
    if (round.left.empty()) ++round.hashed;
  } else {
    return false;
  }
  return true;
}

void AlikeMeter::hash_some() {
  Round& round = *round_;
  std::vector<bool> are_shared;
  const std::vector<PageRange> some =
      round.take_some(round.is_whole ? PageHasher::kMostPages : kPagesOfStep, are_shared);
  if (const auto hashes = hasher_.hash(round.memory, some))
    return round.add(some, are_shared, *hashes);
  refused_.insert(round.members[round.hashed].id);
  round.left.clear();
}

void AlikeMeter::sample(const std::vector<AlikeProcess>& running,
                        const std::function<void()>& meanwhile) {
  if (is_wanted_) round_ = nullptr;
  if (!round_ && !is_due(running)) {
    is_wanted_ = false;
    return;
  }
  const std::uint64_t begin_ns = cost_ns();
  if (!round_) begin(running);
  bool is_done = false;
  while (!is_done && (round_->is_whole || cost_ns() < begin_ns + kStepsAtOnceNs)) {
    is_done = !go_on();
    meanwhile();
  }
  if (is_done) {
    round_->compare();
    std::map<std::uint64_t, const Member*> members;
    for (const Member& each : round_->members) members[each.id] = &each;
    for (const AlikeProcess& each : running) {
      const auto its = members.find(each.id);
      if (its == members.end() || its->second->compared == 0) continue;
      AlikeMemory& alike = each.alike->emplace(result_of(*its->second, round_->part < 1));
      // The rest is new memory, filled as the parent's is.
      if (alike.unchanged_bytes && each.copied_bytes)
        alike.unchanged_bytes = std::min(*alike.unchanged_bytes, *each.copied_bytes);
    }
    compared_changes_ = round_->changes;
    round_ = nullptr;
    const std::uint64_t now = monotonic_ns();
    next_ns_ = now + std::min(now - begun_ns_, kLongestPauseNs);
  }
  budget_.spend(monotonic_ns(), cost_ns() - begin_ns);
}

}  // namespace cowshed::cow
