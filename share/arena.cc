#include <mutex>

#include <cowshed/share/arena.h>
#include <cowshed/share/arena_core.h>
#include <cowshed/share/arena_table.h>
#include <cowshed/share/malloc_route.h>
#include <cowshed/share/reference_counts.h>
#include <cowshed/share/registry_table.h>
#include <cowshed/share/stray_write.h>

namespace cowshed {

Expected<Arena> Arena::create(const ArenaOptions& options) {
  auto core = take_vacant_core();
  if (!core) {
    return tl::make_unexpected(std::move(core.error()));
  }
  std::unique_lock lock((*core)->mutex());
  auto opened = (*core)->open(options);
  lock.unlock();  // the table's lock comes before a core's
  if (!opened) {
    give_back_core(*core);
    return tl::make_unexpected(std::move(opened.error()));
  }
  show_arena(**core);
  return Arena(*core, *core);
}

Arena& Arena::operator=(Arena&& other) noexcept {
  std::swap(core_, other.core_);
  std::swap(front_, other.front_);
  return *this;
}

Arena::~Arena() {
  if (core_ == nullptr) {
    return;
  }
  registry::release_all_in(core_);
  if (core_->was_entered()) {
    return;  // whatever a library keeps for itself may be in it, to be destroyed after main()
  }
  release_counts_in(core_);
  {
    const std::lock_guard lock(core_->mutex());
    core_->close();
  }
  give_back_core(core_);
}

template <class Function>
Expected<void> Arena::change(Function function) {
  const OutsideScope outside;  // of another arena
  std::unique_lock lock(core_->mutex());
  auto changed = function();
  lock.unlock();
  show_arena(*core_);
  return changed;
}

Expected<void> Arena::freeze(const FreezeOptions& options) {
  if (options.mode == FreezeMode::strict) {
    const int error = internal::install_stray_write_handler();
    if (error != 0) {
      return system_error("the SIGSEGV handler cannot be installed", error);
    }
  }
  ArenaCore* successor = options.successor == nullptr ? nullptr : options.successor->core_;
  return change([&] { return core_->freeze(options, successor); });
}

Expected<void> Arena::thaw() {
  return change([&] { return core_->thaw(); });
}

Expected<void> Arena::refreeze(const Progress& progress) {
  return change([&] { return core_->refreeze(progress); });
}

Expected<std::size_t> Arena::collapse(const Progress& progress) {
  const OutsideScope outside;
  const std::lock_guard lock(core_->mutex());
  return core_->collapse(progress);
}

Expected<void> Arena::prefault() const {
  const std::lock_guard lock(core_->mutex());
  return core_->prefault();
}

Expected<std::size_t> Arena::private_bytes() const {
  const std::lock_guard lock(core_->mutex());
  return core_->private_bytes();
}

tl::unexpected<Error> Arena::too_many(std::size_t count, std::size_t size) const {
  return make_error(ErrorCode::capacity_exceeded, "arena '" + std::string(name()) +
                                                      "': an array of " + std::to_string(count) +
                                                      " times " + std::to_string(size) +
                                                      " bytes is more than there are addresses");
}

bool Arena::contains(const void* address) const noexcept { return core_->contains(address); }

ArenaStats Arena::stats() const { return core_->stats(); }

std::string_view Arena::name() const noexcept { return core_->name(); }

std::byte* Arena::base() const noexcept { return reinterpret_cast<std::byte*>(core_->begin()); }

}  // namespace cowshed
