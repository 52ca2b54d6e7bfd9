#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <fmt/format.h>

#include <cowshed/tools/cowtop/text/container.h>
#include <cowshed/tools/cowtop/text/figures.h>

namespace cowshed::cowtop {
namespace {

constexpr double kGiB = 1024 * kMiB;
constexpr std::uint64_t kManyBytes = std::uint64_t{10'000} << 20U;  // hard to read in MiB

std::string cleaned(std::string_view text, bool keeps_newlines) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const auto [code, bytes] = first_character(text);
    const bool is_kept = bytes != 0 && (is_printable(code) || (keeps_newlines && code == '\n'));
    result += is_kept ? text.substr(0, bytes) : "?";
    text.remove_prefix(std::max<std::size_t>(bytes, 1));
  }
  return result;
}

}  // namespace

Character first_character(std::string_view text) {
  if (text.empty()) return {};
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const std::size_t bytes = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < bytes) return {};
  char32_t code = lead & (0x7fU >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    code = code << 6U | (byte(i) & 0x3fU);
  }
  const bool is_surrogate = code >= 0xd800 && code < 0xe000;
  const bool is_overlong = (bytes == 3 && code < 0x800) || (bytes == 4 && code < 0x10000);
  return is_surrogate || is_overlong || code > 0x10ffff ? Character() : Character{code, bytes};
}

bool is_printable(char32_t character) {
  struct Range {
    char32_t first;
    char32_t last;
  };
  constexpr std::array kNot = {
      Range{0, 0x1f},         Range{0x7f, 0x9f}, Range{0x61c, 0x61c},  // a mark of direction
      Range{0x200b, 0x200f},   // of no width, and marks of direction
      Range{0x2028, 0x202e},   // line and paragraph separators, and what turns text around
      Range{0x2060, 0x206f},   // joins, isolates and the like
      Range{0xfeff, 0xfeff},   // the byte order mark
      Range{0xfff9, 0xfffb},   // annotations
      Range{0xe0000, 0xe007f}  // tags
  };
  return std::ranges::none_of(kNot, [&](const Range& range) {
    return range.first <= character && character <= range.last;
  });
}

std::string printable(std::string_view text) { return cleaned(text, false); }
std::string printable_lines(std::string_view text) { return cleaned(text, true); }

std::string frame_text(const cow::Frame& frame) {
  if (frame.is_python) return printable(cow::python_text(frame));
  std::string text = printable(frame.function.empty() ? "??" : frame.function);
  const bool has_address = frame.function.empty() && frame.address > 0;
  constexpr std::string_view kNameless = "(anonymous namespace)::";
  for (auto at = text.find(kNameless); at != text.npos; at = text.find(kNameless))
    text.erase(at, kNameless.size());
  if (!frame.file.empty()) {
    text += fmt::format(" {}:{}", printable(cow::base_name(frame.file)), frame.line);
  } else if (!frame.module.empty()) {
    // Each process has its own perf-PID.map.
    const std::string_view file = cow::base_name(frame.module);
    const bool is_map = file.starts_with("perf-") && file.ends_with(".map");
    text += fmt::format(" ({}", is_map && !frame.function.empty() ? "perf map" : printable(file));
    text += has_address ? fmt::format("+0x{:x})", frame.address) : ")";
  } else if (has_address) {
    text = fmt::format("0x{:x}", frame.address);
  }
  return frame.inlined ? text + " (inlined)" : text;
}

std::string site_name(const cow::CodeSite& site) {
  return site.frames.empty() ? "??" : frame_text(site.frames.back());
}

std::string plural(std::uint64_t count, std::string_view one) {
  return fmt::format("{} {}{}", count, one,
                     count == 1                 ? ""
                     : one.ends_with("process") ? "es"
                                                : "s");
}

std::string whole_percent(double ratio) { return fmt::format("{:.0f}%", ratio * 100); }

std::string mib(const std::optional<std::uint64_t>& bytes) {
  if (bytes.value_or(0) < kManyBytes) return mebibytes(bytes) + kNoBreak + "MiB";
  return fmt::format("{:.1f}{}GiB", static_cast<double>(*bytes) / kGiB, kNoBreak);
}

std::string mib_range(std::uint64_t least, std::uint64_t most, int digits) {
  const bool is_gib = most >= kManyBytes;
  const double unit = is_gib ? kGiB : kMiB;
  return fmt::format("{:.{}f} to {:.{}f}{}{}", static_cast<double>(least) / unit,
                     is_gib ? 1 : digits, static_cast<double>(most) / unit, is_gib ? 1 : digits,
                     kNoBreak, is_gib ? "GiB" : "MiB");
}

std::string without_unit_of(const std::string& whole, std::string part) {
  const auto unit = part.rfind(kNoBreak);
  if (unit != part.npos && whole.ends_with(part.substr(unit))) part.resize(unit);
  return part;
}

std::string breakable(std::string text) {
  for (auto at = text.find(kNoBreak); at != text.npos; at = text.find(kNoBreak, at))
    text.replace(at, std::string_view(kNoBreak).size(), " ");
  return text;
}

std::string count(const std::optional<std::uint64_t>& value) {
  return value ? fmt::format("{}", *value) : kUnknown;
}

std::string mebibytes(const std::optional<std::uint64_t>& bytes) {
  if (!bytes) return kUnknown;
  if (*bytes < kManyBytes) return fmt::format("{:.1f}", static_cast<double>(*bytes) / kMiB);
  std::string digits = fmt::format("{:.0f}", static_cast<double>(*bytes) / kMiB);
  for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, ",");
  return digits;
}

std::string percent(const std::optional<double>& ratio) {
  return ratio ? fmt::format("{:.1f}%", *ratio * 100) : kUnknown;
}

std::string milliseconds(double ns) {
  constexpr double kNsPerMs = 1e6;
  constexpr double kMany = 10;  // ms
  const double ms = ns / kNsPerMs;
  return fmt::format("{:.{}f}", ms, ms < 1 ? 2 : ms < kMany ? 1 : 0);
}

std::string errno_name(int error) {
  const char* name = error == 0 ? nullptr : ::strerrorname_np(error);
  return name ? name : "an error";
}

std::string figure_text(const cow::Figure& figure, const std::optional<double>& value) {
  if (!value) return kUnknown;
  switch (figure.unit) {
    case cow::Unit::bytes: return mebibytes(static_cast<std::uint64_t>(*value));
    case cow::Unit::ratio: return percent(value);
    case cow::Unit::seconds: return fmt::format("{:.1f}", *value);
    case cow::Unit::count: return fmt::format("{:.0f}", *value);
    case cow::Unit::nanoseconds: return milliseconds(*value);
  }
  return kUnknown;
}

std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name ? fmt::format("SIG{}", name) : fmt::format("signal {}", signal);
}

std::string limit_text(const cow::OutOfMemory& why) {
  constexpr std::size_t kMost = 60;
  const Container container = container_of(why.limit);
  std::string path = printable(why.limit);
  if (path.size() > kMost) path = "..." + path.substr(path.size() - kMost);
  if (!container.pod.empty()) path = "pod " + container.pod;
  if (!container.id.empty()) path = "container " + container.id;
  return fmt::format("memory.max of {} ({})", path, mib(why.limit_bytes));
}

std::string killed_by(const cow::ProcessCopies& process) {
  const auto name = [](const auto& other) {
    return other.pid == 0 ? printable(other.comm)
                          : fmt::format("{} (PID {})", printable(other.comm), other.pid);
  };
  const std::optional<Sender>& sender = process.sender;
  std::string text = " killed by " + signal_name(process.signal.value_or(SIGKILL));
  if (!process.out_of_memory) return text + (sender ? " from " + name(*sender) : "");
  const cow::OutOfMemory& why = *process.out_of_memory;
  text = (why.is_sure ? "" : " perhaps") + text + ", out of memory";
  if (!why.is_sure) text += " (its cgroup counts an oom_kill)";
  if (why.limit == cow::kMachine) text += ": the machine had none left";
  else if (!why.limit.empty()) text += fmt::format(": {} was reached", limit_text(why));
  if (sender)
    text +=
        fmt::format(", when {} asked for more", sender->pid == process.pid ? "it" : name(*sender));
  for (const cow::MemoryHolder& each : why.holders)
    text += fmt::format("{}{} {}", &each == &why.holders.front() ? ". Held then: " : ", ",
                        name(each), mib(each.bytes));
  return text;
}

std::string ending(const cow::ProcessCopies& process) {
  if (process.alive) return "running";
  if (process.signal) return signal_name(*process.signal);
  if (process.exit_status) return fmt::format("exit {}", *process.exit_status);
  return "ended";
}

std::string and_more(const cow::ProcessCopies& process) {
  return process.processes == 1 ? "" : fmt::format(" and {} more", process.processes - 1);
}

std::optional<double> probes_cpu(const cow::Measurement& measurement) {
  constexpr double kNsPerSecond = 1e9;
  if (!measurement.overhead.ns_per_event || measurement.duration_s <= 0) return std::nullopt;
  return static_cast<double>(measurement.overhead.events) * *measurement.overhead.ns_per_event /
         kNsPerSecond / measurement.duration_s;
}

std::string total_copied_text(const std::vector<cow::ForkCopies>& copies) {
  std::uint64_t bytes = 0;
  std::size_t known = 0;
  for (const cow::ForkCopies& each : copies) {
    bytes += each.copied_bytes().value_or(0);
    known += each.copied_pages ? 1 : 0;
  }
  if (known == 0) return kUnknown;
  return mebibytes(bytes) + (known == copies.size() ? " MiB" : " MiB, and what is not known (-)");
}

}  // namespace cowshed::cowtop
