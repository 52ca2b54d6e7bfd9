#include <algorithm>
#include <atomic>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>
#include <utility>

#include <cowshed/cow/code_reader/code_reader_process.h>
#include <cowshed/cow/code_reader/local_code_reader.h>

namespace cowshed::cow {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kMostTime{30'000};       // of one question
constexpr milliseconds kMostTimeOfOne{10'000};  // of all long questions about one binary
constexpr milliseconds kMostTimeOfAll{60'000};  // of all long questions
constexpr milliseconds kMostAsleep{5'000};
constexpr milliseconds kMostCpuTime{5'000};  // of one question
constexpr milliseconds kLong{50};
constexpr std::size_t kMostListBytes = 48 << 10;
constexpr std::size_t kLongestText = 4096;
constexpr std::size_t kMostReleaseSites = 1000;
constexpr std::size_t kMostLineTableBytes = 48 << 10;
constexpr std::size_t kMostModules = 2000;

enum class Question : std::uint8_t {
  add_binary,
  add_layout,
  remove_layout,
  walk,
  frames,
  generated_function,
  forget_names,
  python_lines,
  release_sites,
  python_layout,
  name_at,
  free_pages,
};

enum class Reply : std::uint8_t { answer, wants_file };

std::string_view shortened(std::string_view text) { return text.substr(0, kLongestText); }

// --- In the child process.

// Asks for a file, and waits for it.
FileDescriptor file_from(const HelperSocket& socket, CodeReader::BinaryId binary, FileKind kind,
                         const std::string& name) {
  WireWriter request;
  request.number(Reply::wants_file).number(binary).number(kind).text(shortened(name));
  if (!socket.send(request.bytes())) ::_exit(1);
  auto reply = socket.receive();
  if (!reply) ::_exit(1);
  return std::move(reply->file);
}

void write_walk(WireWriter& to, const CodeReader::Walk& walk) {
  to.number(std::uint8_t{walk.truncated}).number(static_cast<std::uint32_t>(walk.locations.size()));
  for (const CodeReader::Location& each : walk.locations) to.number(each);
}

// Writes as many frames as fit, from the innermost.
void write_frames(WireWriter& to, const std::vector<Frame>& frames) {
  WireWriter fitting;
  std::uint32_t number = 0;
  for (const Frame& frame : frames) {
    if (fitting.bytes().size() >= kMostListBytes) break;
    fitting.text(shortened(frame.function)).text(shortened(frame.file));
    fitting.number(frame.line).number(std::uint8_t{frame.inlined});
    ++number;
  }
  to.number(number).text(fitting.bytes());
}

void write_release_sites(WireWriter& to, const std::map<CounterField, std::size_t>& sites) {
  const std::size_t number = std::min(sites.size(), kMostReleaseSites);
  to.number(static_cast<std::uint32_t>(number));
  auto site = sites.begin();
  for (std::size_t i = 0; i < number; ++i, ++site) to.number(site->first).number(site->second);
}

void write_python_lines(WireWriter& to, const std::vector<PythonLine>& lines) {
  to.number(static_cast<std::uint32_t>(lines.size()));
  for (const PythonLine& each : lines) to.number(each);
}

PythonCode read_python_code(WireReader& from) {
  PythonCode code;
  code.first_line = from.number<int>();
  const std::string lines = from.text();
  code.lines.assign(lines.begin(), lines.end());
  return code;
}

CopySample read_sample(WireReader& from) {
  CopySample sample;
  for (std::uint64_t& value : sample.registers) value = from.number<std::uint64_t>();
  const std::string stack = from.text();
  sample.stack.assign(stack.begin(), stack.end());
  return sample;
}

std::vector<CodeReader::Module> read_modules(WireReader& from) {
  std::vector<CodeReader::Module> modules(
      std::min<std::size_t>(from.number<std::uint32_t>(), kMostModules));
  for (CodeReader::Module& module : modules) module = from.number<CodeReader::Module>();
  return modules;
}

// Seven bits in a byte, the lowest first.  The eighth says that more follow.
void write_short(WireWriter& to, std::uint64_t number) {
  for (; number >= 128; number >>= 7U) to.number(static_cast<std::uint8_t>(number | 128U));
  to.number(static_cast<std::uint8_t>(number));
}

std::uint64_t read_short(WireReader& from) {
  std::uint64_t number = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    const auto byte = from.number<std::uint8_t>();
    number |= std::uint64_t{byte & 127U} << shift;
    if (byte < 128) break;
  }
  return number;
}

// Of each range the pages since the last one, its pages, and who holds it.  Writes as many as fit.
void write_free(WireWriter& to, const std::optional<FreeMemory>& free) {
  to.number(std::uint8_t{free.has_value()});
  if (!free) return;
  WireWriter fitting;
  std::uint32_t number = 0;
  std::uint64_t last = 0;
  for (const FreePages& each : free->pages) {
    if (fitting.bytes().size() >= kMostListBytes) break;
    write_short(fitting, (each.begin - last) / kPageSize);
    write_short(fitting, (each.end - each.begin) / kPageSize);
    fitting.number(each.in);
    last = each.end;
    ++number;
  }
  to.number(free->mmap_threshold).number(number).text(fitting.bytes());
}

std::vector<HeapPart> read_parts(WireReader& from) {
  std::vector<HeapPart> parts(
      std::min<std::size_t>(from.number<std::uint32_t>(), CodeReader::kMostParts));
  for (HeapPart& part : parts) part = from.number<HeapPart>();
  return parts;
}

void answer(CodeReader& reader, WireReader from, const FileDescriptor& file, WireWriter& to) {
  const auto question = from.number<Question>();
  const auto id = from.number<std::uint32_t>();
  switch (question) {
    case Question::add_binary:
      to.number(reader.add_binary(id, from.text()).value_or(CodeReader::Extent{}));
      return;
    case Question::add_layout: return reader.add_layout(id, read_modules(from));
    case Question::remove_layout: return reader.remove_layout(id);
    case Question::walk: return write_walk(to, reader.walk(id, read_sample(from)));
    case Question::frames: return write_frames(to, reader.frames(id, from.number<std::uint64_t>()));
    case Question::generated_function:
      to.text(shortened(reader.generated_function(id, from.number<std::uint64_t>())));
      return;
    case Question::forget_names: return reader.forget_names(id);
    case Question::python_lines:
      return write_python_lines(to, reader.python_lines(read_python_code(from)));
    case Question::release_sites: return write_release_sites(to, reader.release_sites(id));
    case Question::python_layout: {
      const auto layout = reader.python_layout(id);
      to.number(std::uint8_t{layout.has_value()}).number(layout.value_or(PythonLayout{}));
      return;
    }
    case Question::name_at:
      to.text(shortened(reader.name_at(id, from.number<std::uint64_t>())));
      return;
    case Question::free_pages: return write_free(to, reader.free_pages(file, read_parts(from)));
  }
}

// Sets timers that end this process, in case its parent is gone.
void end_after(milliseconds cpu_time, milliseconds time) {
  const itimerval timer{{0, 0}, {time.count() / 1000, 0}};
  const itimerval cpu_timer{{0, 0}, {cpu_time.count() / 1000, 0}};
  ::setitimer(ITIMER_REAL, &timer, nullptr);
  ::setitimer(ITIMER_PROF, &cpu_timer, nullptr);
}

void serve(const HelperSocket& socket, std::atomic<CodeReader::BinaryId>& at_work_on) {
  LocalCodeReader reader(
      [&](CodeReader::BinaryId binary, FileKind kind, const std::string& name) {
        return file_from(socket, binary, kind, name);
      },
      [&](CodeReader::BinaryId binary) { at_work_on = binary; });
  while (const auto message = socket.receive()) {
    end_after(kMostCpuTime, 2 * kMostTime);
    WireWriter reply;
    reply.number(Reply::answer);
    answer(reader, WireReader(message->bytes), message->file, reply);
    end_after(milliseconds(0), milliseconds(0));
    if (!socket.send(reply.bytes())) return;
  }
}

// --- In cowtop.

// Makes a text safe to show on a terminal, in a report or in a browser.
std::string without_controls(std::string text) {
  std::ranges::replace_if(text, [](unsigned char each) { return each < ' ' || each == 0x7f; }, '?');
  return text;
}

WireWriter question(Question which, std::uint32_t id) {
  WireWriter wire;
  wire.number(which).number(id);
  return wire;
}

}  // namespace

CodeReaderProcess::CodeReaderProcess(FileOf file_of) : file_of_(std::move(file_of)) {
  void* shared = ::mmap(nullptr, sizeof *at_work_on_, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  at_work_on_ = shared == MAP_FAILED ? nullptr : new (shared) std::atomic<BinaryId>(0);
}

CodeReaderProcess::~CodeReaderProcess() {
  if (at_work_on_ != nullptr) ::munmap(at_work_on_, sizeof *at_work_on_);
}

bool CodeReaderProcess::start() {
  if (process_) return true;
  if (at_work_on_ == nullptr || has_given_up()) return false;
  process_ =
      HelperProcess::start("cowtop-code", HelperProcess::Rights::none,
                           [this](const HelperSocket& socket) { serve(socket, *at_work_on_); });
  return process_ != nullptr;
}

void CodeReaderProcess::end(BinaryId at_work_on) {
  process_.reset();
  told_binaries_.clear();
  told_layouts_.clear();
  ++deaths_;
  if (binaries_.contains(at_work_on)) set_aside_.insert(at_work_on);
}

std::optional<std::string> CodeReaderProcess::reply_to(const WireWriter& request, BinaryId asked,
                                                       int file) {
  const auto end = Clock::now() + kMostTime;
  if (!process_->socket().send(request.bytes(), file)) return std::nullopt;
  for (;;) {
    const auto left = std::chrono::duration_cast<milliseconds>(end - Clock::now());
    if (left <= milliseconds(0)) return std::nullopt;
    const auto message = process_->receive(left, kMostAsleep);
    if (!message) return std::nullopt;
    WireReader wire(message->bytes);
    if (wire.number<Reply>() == Reply::answer) return message->bytes.substr(sizeof(Reply));
    const auto binary = wire.number<BinaryId>();
    const auto kind = wire.number<FileKind>();
    const std::string name = wire.text();
    const bool is_asked = wire.is_good() && binary == asked && !set_aside_.contains(binary);
    const FileDescriptor wanted = is_asked ? file_of_(binary, kind, name) : FileDescriptor();
    if (!process_->socket().send("!", wanted.get())) return std::nullopt;
  }
}

std::optional<std::string> CodeReaderProcess::ask(const WireWriter& request, BinaryId binary,
                                                  int file) {
  if (!start()) return std::nullopt;
  *at_work_on_ = binary;
  const auto begin = Clock::now();
  auto reply = reply_to(request, binary, file);
  const BinaryId worked_on = binary != 0 ? binary : at_work_on_->load();
  if (!reply) end(worked_on);
  const auto took = std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
  if (took > kLong) took_long(worked_on, took);
  return reply;
}

void CodeReaderProcess::took_long(BinaryId binary, milliseconds time) {
  took_ += time;
  const auto known = binaries_.find(binary);
  if (known == binaries_.end()) return;
  known->second.took += time;
  if (known->second.took < kMostTimeOfOne) return;
  set_aside_.insert(binary);
  told_layouts_.clear();  // to be told again, without the binary
}

bool CodeReaderProcess::has_given_up() const {
  return deaths_ >= kMostDeaths || took_ >= kMostTimeOfAll;
}

std::optional<CodeReader::Extent> CodeReaderProcess::tell_binary(BinaryId binary) {
  WireWriter request = question(Question::add_binary, binary);
  request.text(binaries_[binary].path);
  const auto reply = ask(request, binary);
  if (!reply) return std::nullopt;
  told_binaries_.insert(binary);
  const auto extent = WireReader(*reply).number<Extent>();
  if (extent.begin >= extent.end) return std::nullopt;
  return extent;
}

bool CodeReaderProcess::is_told(BinaryId binary) {
  if (set_aside_.contains(binary)) return false;
  if (!told_binaries_.contains(binary)) tell_binary(binary);
  return told_binaries_.contains(binary) && !set_aside_.contains(binary);
}

std::optional<CodeReader::Extent> CodeReaderProcess::add_binary(BinaryId binary,
                                                                const std::string& path) {
  binaries_[binary] = {path};
  return tell_binary(binary);
}

void CodeReaderProcess::add_layout(LayoutId layout, const std::vector<Module>& modules) {
  std::vector<Module>& known = layouts_[layout];
  known = modules;
  if (known.size() > kMostModules) known.resize(kMostModules);
}

void CodeReaderProcess::remove_layout(LayoutId layout) {
  layouts_.erase(layout);
  if (told_layouts_.erase(layout) != 0) ask(question(Question::remove_layout, layout), 0);
}

// Leaves out the binaries that are set aside.
bool CodeReaderProcess::tell_layout(LayoutId layout) {
  std::vector<Module> modules;
  for (const Module& module : layouts_[layout])
    if (is_told(module.binary)) modules.push_back(module);
  // A later binary may have killed the process that knew the earlier ones.
  const bool all_told = std::ranges::all_of(
      modules, [this](const Module& module) { return told_binaries_.contains(module.binary); });
  if (!all_told) return false;
  WireWriter request = question(Question::add_layout, layout);
  request.number(static_cast<std::uint32_t>(modules.size()));
  for (const Module& module : modules) request.number(module);
  if (!ask(request, 0)) return false;
  told_layouts_.insert(layout);
  return true;
}

CodeReader::Walk CodeReaderProcess::walk(LayoutId layout, const CopySample& sample) {
  const std::uint64_t pc = sample[Register::instruction_pointer];
  Walk nothing{{{0, pc, pc}}, true};
  if (!told_layouts_.contains(layout) && !tell_layout(layout)) return nothing;
  WireWriter request = question(Question::walk, layout);
  for (const std::uint64_t value : sample.registers) request.number(value);
  request.text({reinterpret_cast<const char*>(sample.stack.data()), sample.stack.size()});
  const auto reply = ask(request, 0);
  if (!reply) return nothing;
  WireReader wire(*reply);
  Walk walk;
  walk.truncated = wire.number<std::uint8_t>() != 0;
  const auto number = std::min<std::size_t>(wire.number<std::uint32_t>(), kMostFrames);
  for (std::size_t i = 0; i < number; ++i) walk.locations.push_back(wire.number<Location>());
  return wire.is_good() && !walk.locations.empty() ? walk : nothing;
}

std::vector<Frame> CodeReaderProcess::frames(BinaryId binary, std::uint64_t address) {
  std::vector<Frame> frames;
  WireWriter request = question(Question::frames, binary);
  request.number(address);
  if (const auto reply = is_told(binary) ? ask(request, binary) : std::nullopt) {
    WireReader wire(*reply);
    const auto number = std::min<std::size_t>(wire.number<std::uint32_t>(), kMostFrames);
    const std::string bytes = wire.text();
    WireReader each(bytes);
    for (std::size_t i = 0; i < number && each.is_good(); ++i) {
      Frame& frame = frames.emplace_back();
      frame.function = without_controls(each.text());
      frame.file = without_controls(each.text());
      frame.line = each.number<int>();
      frame.inlined = each.number<std::uint8_t>() != 0;
    }
  }
  if (frames.empty()) frames.emplace_back();
  return frames;
}

std::string CodeReaderProcess::generated_function(BinaryId binary, std::uint64_t address) {
  if (set_aside_.contains(binary)) return {};
  binaries_.try_emplace(binary);
  WireWriter request = question(Question::generated_function, binary);
  request.number(address);
  const auto reply = ask(request, binary);
  return reply ? without_controls(WireReader(*reply).text()) : std::string();
}

void CodeReaderProcess::forget_names(BinaryId binary) {
  if (told_binaries_.contains(binary)) ask(question(Question::forget_names, binary), binary);
}

std::vector<PythonLine> CodeReaderProcess::python_lines(const PythonCode& code) {
  std::vector<PythonLine> lines;
  WireWriter request = question(Question::python_lines, 0);
  request.number(code.first_line);
  request.text({reinterpret_cast<const char*>(code.lines.data()),
                std::min(code.lines.size(), kMostLineTableBytes)});
  const auto reply = ask(request, 0);
  if (!reply) return lines;
  WireReader wire(*reply);
  const auto number = std::min<std::size_t>(wire.number<std::uint32_t>(), kMostPythonLines);
  for (std::size_t i = 0; i < number && wire.is_good(); ++i)
    lines.push_back(wire.number<PythonLine>());
  return lines;
}

std::map<CounterField, std::size_t> CodeReaderProcess::release_sites(BinaryId binary) {
  std::map<CounterField, std::size_t> sites;
  if (!is_told(binary)) return sites;
  const auto reply = ask(question(Question::release_sites, binary), binary);
  if (!reply) return sites;
  WireReader wire(*reply);
  const auto number = std::min<std::size_t>(wire.number<std::uint32_t>(), kMostReleaseSites);
  for (std::size_t i = 0; i < number; ++i) {
    const auto field = wire.number<CounterField>();
    sites[field] = wire.number<std::size_t>();
  }
  return sites;
}

std::optional<PythonLayout> CodeReaderProcess::python_layout(BinaryId binary) {
  if (!is_told(binary)) return std::nullopt;
  const auto reply = ask(question(Question::python_layout, binary), binary);
  if (!reply) return std::nullopt;
  WireReader wire(*reply);
  const bool has_layout = wire.number<std::uint8_t>() != 0;
  const auto layout = wire.number<PythonLayout>();
  if (!has_layout || !wire.is_good()) return std::nullopt;
  return layout;
}

std::string CodeReaderProcess::name_at(BinaryId binary, std::uint64_t address) {
  if (!is_told(binary)) return {};
  WireWriter request = question(Question::name_at, binary);
  request.number(address);
  const auto reply = ask(request, binary);
  return reply ? without_controls(WireReader(*reply).text()) : std::string();
}

std::optional<FreeMemory> CodeReaderProcess::free_pages(const FileDescriptor& memory,
                                                        const std::vector<HeapPart>& parts) {
  WireWriter request = question(Question::free_pages, 0);
  const std::size_t number = std::min(parts.size(), kMostParts);
  request.number(static_cast<std::uint32_t>(number));
  for (std::size_t i = 0; i < number; ++i) request.number(parts[i]);
  const auto reply = ask(request, 0, memory.get());
  if (!reply) return std::nullopt;
  WireReader wire(*reply);
  if (wire.number<std::uint8_t>() == 0) return std::nullopt;
  FreeMemory free{{}, wire.number<std::uint64_t>()};
  const auto found = std::min<std::size_t>(wire.number<std::uint32_t>(), kMostFreeRanges);
  const std::string bytes = wire.text();
  WireReader each(bytes);
  std::uint64_t last = 0;
  for (std::size_t i = 0; i < found; ++i) {
    const std::uint64_t begin = last + read_short(each) * kPageSize;
    const std::uint64_t end = begin + read_short(each) * kPageSize;
    const auto in = each.number<FreeIn>();
    if (!each.is_good() || begin < last || end <= begin || in > FreeIn::pymalloc) break;
    free.pages.push_back({begin, end, in});
    last = end;
  }
  return free;
}

}  // namespace cowshed::cow
