#include "plugin_use.h"

#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include <cowshed/share/arena.h>
#include <cowshed/share/channel.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>

namespace {

using namespace cowshed::size_literals;
using Words = std::pmr::vector<std::pmr::string>;

std::size_t letters(const Words& words) {
  std::size_t sum = 0;
  for (const auto& word : words) sum += word.size();
  return sum;
}

}  // namespace

std::string use_cowshed(const std::string& name) try {
  auto arena = cowshed::Arena::create({.name = name, .capacity = 64_MiB}).value();
  Words* words = arena.make<Words>().value();
  for (int i = 0; i < 1000; ++i)
    words->emplace_back("a word that is too long to be a part of its string");
  words->resize(500);
  const auto ref = cowshed::publish(name, words).value();
  if (auto frozen = arena.freeze(); !frozen) return frozen.error().message;

  auto sums =
      cowshed::Channel<std::size_t>::create({.name = name, .slots = 4, .memory = 1_MiB}).value();
  auto workers = cowshed::start(
                     {.count = 2, .threads = cowshed::Threads::allow},
                     [&](const Words& frozen) { (void)sums.send(letters(frozen)); }, ref)
                     .value();
  for (int i = 0; i < 2; ++i)
    if (sums.receive() != letters(*words)) return "a worker read something else";
  for (const auto& exit : workers.wait().value())
    if (!exit.ok()) return "a worker: " + exit.error;

  auto failing = cowshed::start({.threads = cowshed::Threads::allow}, [] {
                   throw std::out_of_range("of a worker");
                 }).value();
  const std::string failure = failing.wait().value().front().error;
  return failure.ends_with("): of a worker") ? "" : failure;
} catch (const std::exception& failure) {
  return failure.what();
}
