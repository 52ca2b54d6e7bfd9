#pragma once

#include <stdexcept>

#include <cowshed/cow/meter.h>
#include <cowshed/tests/cow/children.h>

namespace cowshed::cow::test {

// What a child did: measured while it did `work`.
inline Meter measured_child(const std::function<void()>& work) {
  PausedChild child(work);
  Meter meter = Meter::begin(child.pid()).value();
  child.work();
  if (const auto ended = meter.end(); !ended) throw std::runtime_error(ended.error().message);
  return meter;
}

}  // namespace cowshed::cow::test
