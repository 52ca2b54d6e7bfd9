#include <cowshed/share/arena.h>
#include <cowshed/share/arena_scope.h>

#include "fill_work.h"

// The program that `fill` starts to measure malloc in an ArenaScope: it is linked with
// cowshed::malloc.
namespace cowshed::bench {
namespace {

struct Scope {
  explicit Scope(bool huge)
      : arena(got(Arena::create({.name = "fill", .capacity = 4_GiB, .huge_pages = huge}))) {}
  class Thread {
   public:
    explicit Thread(Scope& backend) : scope_(got(ArenaScope::enter(backend.arena))) {}
    void* allocate(std::size_t size) { return std::malloc(size); }
    void deallocate(void* block, std::size_t) { std::free(block); }

   private:
    ArenaScope scope_;
  };
  static void check_pages(bool, std::size_t) {}

  Arena arena;
};

const SubjectKind kFill("fill", [](const Words& arguments) -> Answer {
  return fill_answer<Scope>(FillOptions(arguments));
});

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) { return cowshed::bench::run_as_subject(argc, argv).value_or(2); }
