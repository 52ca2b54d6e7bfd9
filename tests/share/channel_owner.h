#pragma once

#include <csignal>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include <cowshed/share/forkserver.h>
#include <cowshed/share/worker_message.h>
#include <cowshed/share/workers.h>

#include "channel_parties.h"
#include "every_method.h"

// The process that makes a channel and starts the parties, by each method, as it is told through a
// socket.
namespace cowshed::test {

struct Command {
  bool start;  // else: wait for all, and end
  bool produce;
  bool die_with_parent;
  Start method;
  std::uint32_t life;
};

struct Reply {
  bool started;
  ErrorCode error;
  pid_t pid;
  pid_t server;  // 0: there is none
};

template <class T>
void tell(const Descriptor& socket, const T& value) {
  Encoder to;
  to.put(value);
  const auto sent = launch::send_message(socket.get(), {}, {}, to.finish());
  if (!sent) {
    throw std::runtime_error(sent.error().message);
  }
}

// Nothing when the other end is closed.
template <class T>
std::optional<T> hear(const Descriptor& socket) {
  auto message = value_of(launch::receive_message(socket.get()));
  return message ? std::optional<T>(Decoder(std::move(message->content)).take<T>()) : std::nullopt;
}

// What it knows of the test.
struct Supervisor {
  std::shared_ptr<Descriptor> socket;
  std::string channel;  // its name
};

template <class Traffic>
class Owner {
 public:
  using Of = typename Traffic::Of;

  Owner(const Supervisor& supervisor, const Ledger& ledger, const std::optional<Of>& channel)
      : socket_(*supervisor.socket),
        ledger_(ledger),
        channel_(channel ? *channel
                         : value_of(Of::create({.name = supervisor.channel,
                                                .slots = 32,
                                                .memory = std::uint64_t{24} << 20U}))) {
    tell(socket_, channel_);
  }

  void run() {
    for (auto command = hear<Command>(socket_); command; command = hear<Command>(socket_)) {
      if (!command->start) {
        wait_for_all();
        break;
      }
      (void)channel_.stats();  // takes part, and looks for the dead
      tell(socket_, start_party(*command));
    }
  }

 private:
  Reply start_party(const Command& command) {
    WorkersOptions options = {.method = command.method, .die_with_parent = command.die_with_parent};
    if (command.method == Start::forkserver) {
      if (!server_) {
        server_ = value_of(ForkServer::start());
      }
      options.server = &*server_;
    }
    auto workers = command.produce
                       ? start<produce<Traffic>>(options, channel_, ledger_, command.life)
                       : start<consume<Traffic>>(options, channel_, ledger_, command.life);
    Reply reply = {.started = workers.has_value(),
                   .error = workers ? ErrorCode{} : workers.error().code,
                   .pid = workers ? workers->pids()[0] : 0,
                   .server = server_ ? server_->pid() : 0};
    if (workers) {
      parties_.emplace(command.life, std::move(*workers));
    } else if (reply.error == ErrorCode::forkserver_ended) {
      server_.reset();
    }
    return reply;
  }

  // A party comes to its end, or has been killed: the test knows which.
  void wait_for_all() {
    for (auto& [life, workers] : parties_) {
      const WorkerExit end = value_of(workers.wait())[0];
      // A party may be killed at its very end, and only a forkserver that lives could say so.
      const bool may_be_killed = end.signal == SIGKILL || (end.exit_code < 0 && end.signal == 0);
      if (!end.ok() && !may_be_killed && ledger_.life(life).ended) {
        throw std::runtime_error("party " + std::to_string(life) + ": " + end.error);
      }
    }
  }

  const Descriptor& socket_;
  const Ledger& ledger_;
  Of channel_;
  std::optional<ForkServer> server_;
  std::map<std::uint32_t, Workers<>> parties_;
};

// A worker's function; throws where something is not as it must be.
template <class Traffic>
void own(const Supervisor& supervisor, const Ledger& ledger,
         const std::optional<typename Traffic::Of>& channel) {
  const std::size_t descriptors = open_descriptors();
  Owner<Traffic>(supervisor, ledger, channel).run();
  if (open_descriptors() != descriptors) {
    throw std::runtime_error(std::to_string(open_descriptors()) + " descriptors are open, " +
                             std::to_string(descriptors) + " were");
  }
}

}  // namespace cowshed::test

template <>
struct cowshed::Codec<cowshed::test::Supervisor> {
  static void encode(Encoder& to, const test::Supervisor& supervisor) {
    to.put(supervisor.channel).put_descriptor(supervisor.socket->get());
  }
  static test::Supervisor decode(Decoder& from) {
    auto channel = from.take<std::string>();
    return {std::make_shared<Descriptor>(from.take_descriptor()), std::move(channel)};
  }
};
