#pragma once

#include <memory>
#include <nlohmann/json.hpp>

#include "subject.h"

namespace cowshed::bench {

// A subject whose processes send and receive in the way that its configuration names: {"way":
// "pipe", "size": 64, "senders": 1, "receivers": 1, "back": false, "count": 1000}.  Each sender
// sends "count" messages, or with "back" is answered "count" times.
// Question: {"whole": true}, whether every byte is compared, or the order, number and sum alone.
// Answer: {"ns": a message}, and with "back", of the round trips, {"p50": ns, "p99": ns}.
std::unique_ptr<SubjectWork> make_traffic_work(const nlohmann::json& configuration);

}  // namespace cowshed::bench
