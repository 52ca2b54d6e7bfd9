#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <type_traits>
#include <unistd.h>
#include <utility>
#include <vector>

#include <cowshed/base/size_literals.h>
#include <cowshed/share/arena_image.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/export/image_format.h>
#include <cowshed/share/registry.h>
#include <cowshed/tests/tools/recordings.h>
#include <cowshed/tools/cowtop/recording/recorder.h>
#include <cowshed/tools/cowtop/recording/recording.h>

// make_seeds FOLDER: what the fuzzers begin with, made by the library and by cowtop's recorder.
namespace {

using namespace cowshed;
namespace fs = std::filesystem;

template <class T>
T expect(Expected<T> value) {
  if (!value) {
    std::fprintf(stderr, "make_seeds: %s\n", value.error().message.c_str());
    std::exit(EXIT_FAILURE);
  }
  if constexpr (!std::is_void_v<T>) return std::move(*value);
}

// An image of that many arrays, and with that many 2 MiB ranges between them freed again.
void make_image(const fs::path& path, int arrays, bool holes) {
  constexpr std::size_t kNumbers = 1U << 18U;  // 2 MiB
  constexpr std::size_t kFreed = 4_MiB;
  auto arena = expect(Arena::create({.name = "seed", .capacity = 64_MiB}));
  std::vector<void*> freed;
  for (int i = 0; i < arrays; ++i) {
    const std::span array = expect(arena.make_array<std::uint64_t>(kNumbers));
    expect(publish("array" + std::to_string(i), array));
    if (holes) freed.push_back(arena.allocate(kFreed));
  }
  for (void* block : freed) arena.deallocate(block, kFreed);
  expect(arena.freeze());
  const fs::path whole = path.string() + ".whole";
  expect(save_image(arena, whole));
  image_format::Header header;
  std::ifstream file(whole, std::ios::binary);
  file.read(reinterpret_cast<char*>(&header), sizeof(header));
  std::string head(arch::kPage + header.parcel_bytes, '\0');
  file.seekg(0);
  file.read(head.data(), static_cast<long>(head.size()));
  fs::remove(whole);
  test::write_file(path, head);
}

// The constants of a channel; what is to be changed in the rest is up to the fuzzer.
void make_channel(const fs::path& path) {
  const auto channel =
      expect(Channel<Bytes>::create({.name = "fuzzed", .slots = 4, .memory = 1U << 20U}));
  std::string constants(sizeof(channel_layout::Constants), '\0');
  const ssize_t got = pread(channel.descriptors().segment, constants.data(), constants.size(), 0);
  if (got != static_cast<ssize_t>(constants.size())) std::exit(EXIT_FAILURE);
  test::write_file(path, constants);
}

// A recording, as recording_fuzzer.cc takes it, in both its forms.
void make_recording(const fs::path& folder) {
  using namespace cowshed::cowtop;
  const TestFolder scratch;
  const std::string path = scratch / "recording";
  auto recorder = Recorder::start(OutputFile::open(path).value(), {}).value();
  auto measurement = full_measurement();
  bool written = static_cast<bool>(recorder.append(measurement));
  measurement.processes[1].copied_anon_pages = 1000;
  measurement.processes[1].sampled->sites.clear();
  written = recorder.end(measurement, 1) && written;
  if (!written) std::exit(EXIT_FAILURE);
  write_file(folder / "file", std::string(1, '\0') + contents_of(path));
  std::string lines = "L";
  auto reader = ZstdLineReader::open(InputFile::open(path).value()).value();
  while (const auto line = reader.next().value()) lines += *line;
  write_file(folder / "lines", lines);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_seeds FOLDER\n");
    return EXIT_FAILURE;
  }
  const fs::path folder = argv[1];
  for (const char* kind : {"image", "channel", "recording", "heap"}) {
    fs::remove_all(folder / kind);
    fs::create_directories(folder / kind);
  }
  make_image(folder / "image/empty", 0, false);
  make_image(folder / "image/one", 1, false);
  make_image(folder / "image/holes", 3, true);
  make_channel(folder / "channel/one");
  make_recording(folder / "recording");
  return EXIT_SUCCESS;
}
