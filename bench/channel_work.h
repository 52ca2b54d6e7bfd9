#pragma once

#include <memory>

#include "subject.h"

namespace cowshed::bench {

// What a subject of `channel` does: configuration "work" and "variant"; each answer is one sample.
std::unique_ptr<SubjectWork> make_channel_work(const nlohmann::json& configuration);

}  // namespace cowshed::bench
