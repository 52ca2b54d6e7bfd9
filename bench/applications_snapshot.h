#pragma once

#include <memory>
#include <nlohmann/json.hpp>

#include "application.h"
#include "subject.h"

namespace cowshed::bench {

// A key-value server that saves what it has, as of one moment, by a forked process, and goes on
// writing meanwhile: as Redis does it.
Application snapshot(bool quick, Report& report);
std::unique_ptr<SubjectWork> make_snapshot_work(const nlohmann::json& configuration);

}  // namespace cowshed::bench
