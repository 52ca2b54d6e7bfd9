#pragma once

#include <memory>
#include <nlohmann/json.hpp>

#include "application.h"
#include "subject.h"

namespace cowshed::bench {

// An epoch of a data loader: workers take samples, decode them and send batches to the process that
// trains, as torch's DataLoader does it.
Application data_loader(bool quick, Report& report);
std::unique_ptr<SubjectWork> make_loader_work(const nlohmann::json& configuration);

}  // namespace cowshed::bench
