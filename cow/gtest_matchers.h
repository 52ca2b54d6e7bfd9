#pragma once

#include <cstdint>
#include <gmock/gmock.h>
#include <ostream>

#include <cowshed/cow/meter.h>
#include <cowshed/cow/meter_result.h>

// GoogleTest matchers for Meter.  The only header here that includes GoogleTest.
namespace cowshed::cow {

// GoogleTest finds these by name and prints them after "Actual:".
inline void PrintTo(const MeterResult& copied, std::ostream* out) {  // NOLINT(*-identifier-naming)
  *out << copied.bytes() << " bytes";
}

inline void PrintTo(const Expected<MeterResult>& copied,  // NOLINT(*-identifier-naming)
                    std::ostream* out) {
  copied ? PrintTo(*copied, out) : void(*out << "no measurement");
}

// EXPECT_THAT(meter.copied(), AtMost(4_KiB)), or for a part: meter.copied()->of_object("index").
// Compares at_most_bytes().  An error never matches.  A failure names the copied object, mapping
// and addresses.
class AtMostMatcher {
 public:
  using is_gtest_matcher = void;

  explicit AtMostMatcher(std::uint64_t bytes) : bytes_(bytes) {}

  bool MatchAndExplain(const MeterResult& copied,  // NOLINT(*-identifier-naming)
                       std::ostream* out) const {
    if (copied.at_most_bytes() <= bytes_) return true;
    if (out != nullptr) *out << to_text(copied);
    return false;
  }
  bool MatchAndExplain(const Expected<MeterResult>& copied,  // NOLINT(*-identifier-naming)
                       std::ostream* out) const {
    if (copied) return MatchAndExplain(*copied, out);
    if (out != nullptr) *out << "which could not be measured: " << copied.error().message;
    return false;
  }
  void DescribeTo(std::ostream* out) const {  // NOLINT(*-identifier-naming)
    *out << "at most " << bytes_ << " bytes copied";
  }
  void DescribeNegationTo(std::ostream* out) const {  // NOLINT(*-identifier-naming)
    *out << "more than " << bytes_ << " bytes copied";
  }

 private:
  std::uint64_t bytes_;
};

inline AtMostMatcher AtMost(std::uint64_t bytes) {  // NOLINT(*-identifier-naming): as gmock's
  return AtMostMatcher(bytes);
}

}  // namespace cowshed::cow
