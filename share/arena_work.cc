#include <chrono>
#include <utility>

#include <cowshed/share/arena_work.h>

namespace cowshed {
namespace {

constinit thread_local ArenaWork* innermost = nullptr;

class AtRest {
 public:
  explicit AtRest(ArenaCore& core) : work_(core.work()) {
    work_.at_rest = true;
    work_.mutex.unlock();
  }
  ~AtRest() {
    work_.mutex.lock();  // after who forks
    work_.at_rest = false;
  }
  AtRest(const AtRest&) = delete;
  AtRest& operator=(const AtRest&) = delete;

 private:
  ArenaCore::Work& work_;
};

}  // namespace

ArenaWork::ArenaWork(ArenaCore& core) : core_(core), outer_(innermost) {
  core.mutex().lock();
  core.work().mutex.lock();
  innermost = this;
}

ArenaWork::~ArenaWork() {
  innermost = outer_;
  core_.work().mutex.unlock();
  core_.mutex().unlock();
}

void ArenaWork::hold_over_fork(ArenaCore& core) {
  ArenaCore::Work& work = core.work();
  if (is_by_this_thread(core)) {
    return;
  }
  // By the system clock: gcc 12's ThreadSanitizer does not know what the steady one calls.
  while (!core.mutex().try_lock_until(std::chrono::system_clock::now() +
                                      std::chrono::milliseconds(1))) {
    if (work.at_rest && work.mutex.try_lock()) {
      if (work.at_rest) {
        work.held_over_fork = true;
        return;
      }
      work.mutex.unlock();
    }
  }
}

void ArenaWork::give_back_in_parent(ArenaCore& core) {
  if (std::exchange(core.work().held_over_fork, false)) {
    core.work().mutex.unlock();
  } else if (!is_by_this_thread(core)) {
    core.mutex().unlock();
  }
}

void ArenaWork::give_back_in_child(ArenaCore& core) {
  const bool worker_is_gone = core.work().held_over_fork;
  give_back_in_parent(core);
  if (worker_is_gone) {
    core.work().at_rest = false;
    core.mutex().unlock();
  }
}

bool ArenaWork::is_by_this_thread(const ArenaCore& core) {
  for (const ArenaWork* work = innermost; work != nullptr; work = work->outer_) {
    if (&work->core_ == &core) {
      return true;
    }
  }
  return false;
}

Progress watched(const Progress& progress, ArenaCore& core) {
  if (!progress) {
    return nullptr;
  }
  return [&](std::size_t done, std::size_t total) {
    const bool open = core.is_open();
    {
      const AtRest at_rest(core);
      progress(done, total);
    }
    if (open && !core.is_open()) {
      throw ArenaWork::Disowned{};
    }
  };
}

tl::unexpected<Error> moved_from_error() {
  return make_error(ErrorCode::invalid_argument,
                    "this Arena was moved from: use the one that it was moved to");
}

}  // namespace cowshed
