#include <mutex>

#include <cowshed/share/closed_in_forks.h>
#include <cowshed/share/fork_handlers.h>
#include <cowshed/share/fork_state.h>

namespace cowshed::launch {
namespace {

COWSHED_FORK_STATE std::mutex list_mutex;
constinit ClosedInForks* first = nullptr;

}  // namespace

ClosedInForks::ClosedInForks(Close close, void* object) : close_(close), object_(object) {
  static constexpr fork_handlers::Handlers kHandlers = {[] { list_mutex.lock(); },
                                                        [] { list_mutex.unlock(); },
                                                        [] {
                                                          close_all();
                                                          list_mutex.unlock();
                                                        }};
  fork_handlers::enter(fork_handlers::Rank::launches, kHandlers);
  const std::lock_guard lock(list_mutex);
  next_ = first;
  first = this;
}

ClosedInForks::~ClosedInForks() {
  const std::lock_guard lock(list_mutex);
  ClosedInForks** link = &first;
  while (*link != this) {
    link = &(*link)->next_;
  }
  *link = next_;
}

void ClosedInForks::close_all() noexcept {
  for (const ClosedInForks* each = first; each != nullptr; each = each->next_) {
    each->close_(each->object_);
  }
}

}  // namespace cowshed::launch
