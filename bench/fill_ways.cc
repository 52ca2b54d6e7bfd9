#include "fill_ways.h"

#include <stdexcept>

#include "machine.h"

namespace cowshed::bench {

std::unique_ptr<Subject> start_way(const FillWay& way, nlohmann::json configuration) {
  configuration["variant"] = way.variant;
  auto subject = std::make_unique<Subject>(configuration, way.program, way.environment);
  const std::string provider = subject->facts()["malloc"];
  if (provider.find(way.provider) == std::string::npos) {
    throw std::runtime_error(way.name + ": malloc is provided by " + provider);
  }
  return subject;
}

std::vector<Samples> measure_ways(const std::vector<FillWay>& ways,
                                  const nlohmann::json& configuration, int pairs) {
  for (const FillWay& way : ways) start_way(way, configuration);  // checked before any is timed
  std::vector<Variant> variants;
  for (const FillWay& way : ways) {
    variants.push_back({way.name, [&way, &configuration] {
                          // Again and again: hosts take back what a guest does not use.
                          if (configuration["pattern"] == "fill") {
                            touch_memory(4 * configuration["amount"].get<std::size_t>());
                          }
                          return start_way(way, configuration)->ask({})["ns"].get<double>();
                        }});
  }
  return interleave(variants, pairs);
}

}  // namespace cowshed::bench
