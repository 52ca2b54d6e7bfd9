#pragma once

#include <cowshed/share/forkserver.h>
#include <cowshed/share/workers.h>
#include <cowshed/tests/support/test.h>

#include "memory_map.h"

namespace cowshed::test {

// Tests of this kind run under fork, spawn and forkserver.  Whatever one does, it leaves no child
// and no descriptor.
class EveryMethod : public testing::TestWithParam<Start> {
 protected:
  void SetUp() override { descriptors_ = open_descriptors(); }
  void TearDown() override;

  WorkersOptions with(WorkersOptions options);
  WorkersOptions one() { return with({}); }

 private:
  std::size_t descriptors_ = 0;
  std::optional<ForkServer> server_;  // so that it is gone after the test
};

std::string name_of_method(const testing::TestParamInfo<Start>& info);

template <class T>
T value_of(Expected<T> expected) {
  if (!expected) throw std::runtime_error(expected.error().message);
  return std::move(*expected);
}

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

}  // namespace cowshed::test

template <>
struct cowshed::Codec<cowshed::test::Open> {
  static void encode(Encoder& to, const test::Open& open) { to.put_descriptor(open.descriptor); }
  static test::Open decode(Decoder& from) { return {from.take_descriptor()}; }
};

#define COWSHED_EVERY_METHOD(suite)                                                             \
  INSTANTIATE_TEST_SUITE_P(                                                                     \
      Workers, suite,                                                                           \
      testing::Values(cowshed::Start::fork, cowshed::Start::spawn, cowshed::Start::forkserver), \
      cowshed::test::name_of_method)
