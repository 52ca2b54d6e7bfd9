#include <mutex>

#include <cowshed/base/try.h>
#include <cowshed/share/arena.h>
#include <cowshed/share/arena/core.h>
#include <cowshed/share/arena/table.h>
#include <cowshed/share/jemalloc/outside_scope.h>
#include <cowshed/share/stray_write.h>

// The handle of an arena: it locks the core, calls it, and publishes its new state.
namespace cowshed {

using namespace internal;

Expected<Arena> Arena::create(const ArenaOptions& options) {
  TRY(VacantCore core, take_vacant_core());
  {
    const std::lock_guard lock(core->mutex());
    TRY_VOID(core->open(options));
  }
  show_arena(*core);
  return Arena(*core.release());
}

Arena::Arena(ArenaCore& core) noexcept : core_(&core), resource_(core.resource()) {
  lost_arena_observer = [] { (void)install_stray_write_handler(); };  // it says what is lost
}

Arena& Arena::operator=(Arena&& other) noexcept {
  Arena taken(std::move(other));  // ends with the arena that this one had
  std::swap(core_, taken.core_);
  std::swap(resource_, taken.resource_);
  return *this;
}

Arena::~Arena() {
  if (core_ == nullptr) return;
  if (auto* const observer = arena_end_observer.load()) observer(*core_);
  {
    const OutsideScope outside;  // of another arena
    const std::lock_guard lock(core_->mutex());
    if (core_->abandon()) return;
    core_->close();
  }
  give_back_core(core_);
}

Expected<void> Arena::discard() {
  TRY_VOID(work([&] { return core_->expect_no_scope("discard it"); }));
  if (auto* const observer = arena_end_observer.load()) observer(*core_);
  {
    const OutsideScope outside;  // of another arena
    const std::lock_guard lock(core_->mutex());
    core_->close();
  }
  give_back_core(std::exchange(core_, nullptr));
  resource_ = resource_of_no_arena();
  return {};
}

template <class Function>
auto Arena::work(Function function) const -> decltype(function()) {
  if (core_ == nullptr) return moved_from_error();
  const OutsideScope outside;  // of another arena
  const std::lock_guard lock(core_->mutex());
  return function();
}

template <class Function>
Expected<void> Arena::change(Function function) {
  return work([&] {
    auto changed = function();
    show_arena(*core_);
    return changed;
  });
}

Expected<void> Arena::freeze(const FreezeOptions& options) {
  if (options.mode == FreezeMode::strict) {
    const int error = install_stray_write_handler();
    if (error != 0) return system_error("the SIGSEGV handler cannot be installed", error);
  }
  return change([&] { return core_->freeze(options); });
}

Expected<void> Arena::thaw() {
  return change([&] { return core_->thaw(); });
}

Expected<void> Arena::refreeze(const Progress& progress) {
  return change([&] { return core_->refreeze(progress); });
}

Expected<std::size_t> Arena::collapse(const Progress& progress) {
  return work([&] { return core_->collapse(progress); });
}

Expected<void> Arena::prefault() const {
  return work([&] { return core_->prefault(); });
}

Expected<std::size_t> Arena::private_bytes() const {
  return work([&] { return core_->private_bytes(); });
}

tl::unexpected<Error> internal::moved_from_error() {
  return make_error(ErrorCode::invalid_argument,
                    "this Arena was moved from: use the one that it was moved to");
}

// Not in the arena of an ArenaScope, which may be the one that is full.
tl::unexpected<Error> internal::refusal_of(const ArenaBadAlloc& failure) {
  const OutsideScope outside;
  return tl::make_unexpected(failure.error());
}

bool Arena::contains(const void* address) const noexcept {
  return core_ != nullptr && core_->contains(address);
}

ArenaStats Arena::stats() const { return core_ == nullptr ? ArenaStats{} : core_->stats(); }

std::string_view Arena::name() const noexcept { return core_ == nullptr ? "" : core_->name(); }

std::byte* Arena::base() const noexcept {
  return core_ == nullptr ? nullptr : reinterpret_cast<std::byte*>(core_->begin());
}

}  // namespace cowshed
