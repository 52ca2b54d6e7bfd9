#pragma once

#include <cowshed/base/file_descriptor.h>
#include <cowshed/share/forkserver.h>
#include <cowshed/tests/share/share.h>

namespace cowshed::test {

// Tests of this kind run under fork, spawn and forkserver.
class EveryMethod : public LeavesNothing, public testing::WithParamInterface<Start> {
 protected:
  void TearDown() override;

  WorkersOptions with(WorkersOptions options);
  WorkersOptions one() { return with({}); }

 private:
  std::optional<ForkServer> server_;  // so that it is gone after the test
};

std::string name_of_method(const testing::TestParamInfo<Start>& info);

// What became of the first.
template <class W>
auto end_of(Expected<W> workers) {
  auto all = value_of(std::move(workers));
  return std::move(value_of(all.wait())[0]);
}

// A descriptor as an argument: the worker has a duplicate, or by fork the parent's.
struct Open {
  int descriptor;
};

struct Pipe {
  FileDescriptor read_end;
  FileDescriptor write_end;
  Pipe() {
    std::array<int, 2> ends = {};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
    read_end = FileDescriptor(ends[0]);
    write_end = FileDescriptor(ends[1]);
  }
  Open from() const { return {read_end.get()}; }
  Open to() const { return {write_end.get()}; }
  // Within a generous time; false: it was closed.
  bool read_byte() const {
    pollfd ready = {read_end.get(), POLLIN, 0};
    char byte = 0;
    if (poll(&ready, 1, 60'000) != 1) throw std::runtime_error("nothing happens");
    return read(read_end.get(), &byte, 1) == 1;
  }
};

inline void stay() {
  for (;;) pause();
}

}  // namespace cowshed::test

template <>
struct cowshed::Codec<cowshed::test::Open> {
  static void encode(Encoder& to, const test::Open& open) { to.put_descriptor(open.descriptor); }
  static test::Open decode(Decoder& from) { return {from.take_descriptor()}; }
};

namespace cowshed {

using test::end_of;
using test::Open;
using test::Pipe;
using test::stay;

}  // namespace cowshed

#define COWSHED_EVERY_METHOD(suite)                                                             \
  INSTANTIATE_TEST_SUITE_P(                                                                     \
      Workers, suite,                                                                           \
      testing::Values(cowshed::Start::fork, cowshed::Start::spawn, cowshed::Start::forkserver), \
      cowshed::test::name_of_method)
