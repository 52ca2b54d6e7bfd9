#pragma once

namespace cowshed::launch {

// An object whose descriptors are closed in every process that this one forks: the sockets and
// pidfds of its launches.  A worker that had those of others would hide the end of their parent
// from them.  Thread-safe.
class ClosedInForks {
 public:
  using Close = void (*)(void* object) noexcept;

  // `close` is called in the forked process, with one thread, while this lives.  Other threads of
  // the parent may have been in the midst of changing the object.
  ClosedInForks(Close close, void* object);
  ClosedInForks(const ClosedInForks&) = delete;
  ClosedInForks& operator=(const ClosedInForks&) = delete;
  ~ClosedInForks();

 private:
  static void close_all() noexcept;

  Close close_;
  void* object_;
  ClosedInForks* next_;
};

}  // namespace cowshed::launch
