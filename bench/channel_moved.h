#pragma once

#include <memory>

#include "subject.h"

namespace cowshed::bench {

// How long "size" bytes take to a process on another CPU, moved or through a pipe, "until" it has
// "received" them, has each page "mapped", or has "read" all.  Each answer is one sample.
std::unique_ptr<SubjectWork> make_moved_work(const nlohmann::json& configuration);
std::unique_ptr<SubjectWork> make_piped_work(const nlohmann::json& configuration);

}  // namespace cowshed::bench
