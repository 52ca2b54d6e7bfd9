#pragma once

#include <memory>
#include <nlohmann/json.hpp>

#include "application.h"
#include "subject.h"

namespace cowshed::bench {

// The search service of tools/search: an index of packages, and workers who answer queries.
Application search_service(bool quick, Report& report);
std::unique_ptr<SubjectWork> make_search_work(const nlohmann::json& configuration);

}  // namespace cowshed::bench
