#include <jemalloc/jemalloc.h>
#include <memory>
#include <stdexcept>
#include <string>

#include "fill_malloc.h"
#include "fill_work.h"
#include "late_frees.h"
#include "program.h"

// The rival of `fill` and `allocators`: a program that is linked with the system's jemalloc, at its
// defaults.
namespace cowshed::bench {
namespace {

void control(const char* name, void* result, std::size_t size) {
  if (mallctl(name, result, &size, nullptr, 0) != 0) {
    throw std::runtime_error(std::string("jemalloc refuses ") + name);
  }
}

// An arena of its own with the default hooks, and a cache for each thread.
struct Mallocx {
  Mallocx() { control("arenas.create", &arena, sizeof arena); }

  class Thread {
   public:
    explicit Thread(const Mallocx& backend) {
      control("tcache.create", &cache_, sizeof cache_);
      flags_ = static_cast<int>(MALLOCX_ARENA(backend.arena) | MALLOCX_TCACHE(cache_));
    }
    ~Thread() { mallctl("tcache.destroy", nullptr, nullptr, &cache_, sizeof cache_); }
    Thread(const Thread&) = delete;
    Thread& operator=(const Thread&) = delete;

    void* allocate(std::size_t size) { return mallocx(size, flags_); }
    void deallocate(void* block, std::size_t size) { sdallocx(block, size, flags_); }

   private:
    unsigned cache_ = 0;
    int flags_ = 0;
  };

  unsigned arena = 0;
};

std::unique_ptr<SubjectWork> make_work(const nlohmann::json& configuration) {
  if (configuration["variant"] == "mallocx") {
    return std::make_unique<FillWork<Mallocx>>(configuration);
  }
  return make_fill_work<Malloc>(configuration);
}

}  // namespace
}  // namespace cowshed::bench

int main(int argc, char** argv) {
  return cowshed::bench::run_subject_program(argc, argv, cowshed::bench::make_work);
}
