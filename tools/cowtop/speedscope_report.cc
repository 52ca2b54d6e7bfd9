#include <map>
#include <sstream>

#include <cowshed/tools/cowtop/folded_report.h>
#include <cowshed/tools/cowtop/measurement_json.h>
#include <cowshed/tools/cowtop/speedscope_report.h>

namespace cowshed::cowtop {

std::string speedscope_report(const cow::Measurement& measurement) {
  Json frames = Json::array();
  Json samples = Json::array();
  Json weights = Json::array();
  std::map<std::string, std::size_t> numbers;
  std::uint64_t all = 0;
  for (const auto& [stack, pages] : folded_copies(measurement)) {
    Json sample = Json::array();
    std::istringstream names(stack);
    for (std::string name; std::getline(names, name, ';');) {
      const auto [number, is_new] = numbers.try_emplace(name, numbers.size());
      if (is_new) frames.push_back({{"name", name}});
      sample.push_back(number->second);
    }
    samples.push_back(std::move(sample));
    weights.push_back(pages);
    all += pages;
  }
  const Json report = {{"$schema", "https://www.speedscope.app/file-format-schema.json"},
                       {"exporter", "cowtop " COWSHED_VERSION},
                       {"name", "pages copied"},
                       {"shared", {{"frames", std::move(frames)}}},
                       {"profiles",
                        {{{"type", "sampled"},
                          {"name", "pages copied"},
                          {"unit", "none"},
                          {"startValue", 0},
                          {"endValue", all},
                          {"samples", std::move(samples)},
                          {"weights", std::move(weights)}}}}};
  return report.dump(2) + "\n";
}

}  // namespace cowshed::cowtop
