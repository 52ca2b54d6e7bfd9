#include <filesystem>
#include <string>

#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/recorder.h>
#include <cowshed/tools/cowtop/recording.h>

// make_recording_seeds FOLDER: a recording, as recording_fuzzer.cc takes it, in both its forms.
int main(int argc, char** argv) {
  using namespace cowshed::cowtop;
  if (argc != 2) return 2;
  const std::string folder = argv[1];
  std::filesystem::create_directories(folder);
  const TestFolder scratch;
  const std::string path = scratch / "recording";
  auto recorder = Recorder::start(OutputFile::open(path).value(), {}).value();
  auto measurement = full_measurement();
  if (!recorder.append(measurement)) return 1;
  measurement.processes[1].copied_anon_pages = 1000;
  measurement.processes[1].sampled->sites.clear();
  if (!recorder.end(measurement, 1)) return 1;
  write_file(folder + "/file", std::string(1, '\0') + contents_of(path));
  std::string lines = "L";
  auto reader = ZstdLineReader::open(InputFile::open(path).value()).value();
  while (const auto line = reader.next().value()) lines += *line;
  write_file(folder + "/lines", lines);
  return 0;
}
