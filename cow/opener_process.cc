#include <chrono>
#include <utility>

#include <cowshed/cow/opener_process.h>
#include <cowshed/cow/wire.h>

namespace cowshed::cow {
namespace {

constexpr std::chrono::seconds kMostOpenTime{20};
constexpr std::chrono::seconds kMostOpenAsleep{2};

std::string to_bytes(const FileRequest& request) {
  WireWriter wire;
  wire.number(request.place).number(request.pid).number(request.owner);
  wire.number(request.mapping.begin).number(request.mapping.end);
  wire.number(request.mapping.device).number(request.mapping.inode);
  wire.text(request.mapping.path).text(request.name);
  return wire.bytes();
}

FileRequest from_bytes(std::string_view bytes) {
  WireReader wire(bytes);
  FileRequest request;
  request.place = wire.number<FilePlace>();
  request.pid = wire.number<pid_t>();
  request.owner = wire.number<std::uint32_t>();
  request.mapping.begin = wire.number<std::uint64_t>();
  request.mapping.end = wire.number<std::uint64_t>();
  request.mapping.device = wire.number<dev_t>();
  request.mapping.inode = wire.number<std::uint64_t>();
  request.mapping.path = wire.text();
  request.name = wire.text();
  return request;
}

void serve(const ProcFiles& proc, const HelperSocket& socket) {
  while (const auto message = socket.receive()) {
    const Descriptor file = open_requested(proc, from_bytes(message->bytes));
    if (!socket.send("!", file.get())) return;
  }
}

}  // namespace

Descriptor OpenerProcess::open(const FileRequest& request) {
  if (hung_ >= kMostHung || hung_devices_.contains(request.mapping.device)) return {};
  if (!process_) {
    process_ = HelperProcess::start("cowtop-files", HelperProcess::Rights::as_ours,
                                    [this](const HelperSocket& socket) { serve(proc_, socket); });
  }
  if (!process_) return {};
  const bool sent = process_->socket().send(to_bytes(request));
  if (auto reply = sent ? process_->receive(kMostOpenTime, kMostOpenAsleep) : std::nullopt)
    return std::move(reply->file);
  process_.reset();
  ++hung_;
  if (request.mapping.device != 0) hung_devices_.insert(request.mapping.device);
  return {};
}

}  // namespace cowshed::cow
