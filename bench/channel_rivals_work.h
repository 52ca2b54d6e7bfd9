#pragma once

#include <memory>
#include <nlohmann/json.hpp>

#include "subject.h"

namespace cowshed::bench {

// The subject of `channel_rivals`: processes that send and receive in the way that its
// configuration names, as channel_rivals_python does: {"way": "pipe", "size": 64, "senders": 1,
// "receivers": 1, "back": false, "count": 1000}, of which each sender sends "count", or is answered
// "count" times. Facts: {"settings": "..."}, or {"not possible": "why"}; then nothing may be asked.
// Question: {"whole": true}, whether every byte is compared, or the order, number and sum alone.
// Answer: {"ns": a message, "cpu": ns a message in all processes}, and with "back", of the round
// trips, {"p50": ns, "p99": ns, "p99.9": ns}.
std::unique_ptr<SubjectWork> make_rivals_work(const nlohmann::json& configuration);

}  // namespace cowshed::bench
