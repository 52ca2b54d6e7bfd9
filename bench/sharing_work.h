#pragma once

#include <memory>
#include <nlohmann/json.hpp>

#include "subject.h"

namespace cowshed::bench {

// The subject of `sharing`: holds a dictionary in the way that its configuration names, and uses it
// by forked workers, as sharing_python does.  Questions, each answered with the "ns" it took:
//   {"do": "begin", "workers": 8}                    until each gave its first answer: "answers",
//                                                    "pids"
//   {"do": "use", "pass": 1, "look_ups": 1000}       by each of them: "answers"
//   {"do": "end"}
std::unique_ptr<SubjectWork> make_sharing_work(const nlohmann::json& configuration);

// In questions and in the keys of the first answer.
constexpr std::uint64_t kFirstPass = 0;

}  // namespace cowshed::bench
