#include <cowshed/share/arena_work.h>

namespace cowshed {
namespace {

constinit thread_local ArenaWork* innermost = nullptr;

}  // namespace

ArenaWork::ArenaWork(ArenaCore& core) : core_(core), outer_(innermost) {
  core.mutex().lock();
  innermost = this;
}

ArenaWork::~ArenaWork() {
  innermost = outer_;
  core_.mutex().unlock();
}

bool ArenaWork::is_by_this_thread(const ArenaCore& core) {
  for (const ArenaWork* work = innermost; work != nullptr; work = work->outer_) {
    if (&work->core_ == &core) {
      return true;
    }
  }
  return false;
}

Progress watched(const Progress& progress, const ArenaCore& core) {
  if (!progress) {
    return nullptr;
  }
  return [&](std::size_t done, std::size_t total) {
    const bool open = core.is_open();
    progress(done, total);
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
