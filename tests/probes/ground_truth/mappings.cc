#include "steps.h"

namespace ground_truth {
namespace {

KIND(anon_copied) {
  char* pages = written_private_pages();
  in_child([=] { write_all(pages); });
}

KIND(parent_copies) {
  one_down([] {
    char* pages = written_private_pages();
    const Sharer sharer;
    measured([=] { write_all(pages); });
  });
}

KIND(reused) { as_last_sharer(written_private_pages(), bytes(), write_all); }

KIND(zero_page_write) {
  in_child([] {
    char* pages = private_pages();
    read_all(pages);
    write_all(pages);
  });
}

KIND(zero_page_write_between_reads) {
  in_child([] {
    char* pages = private_pages();
    (void)*static_cast<const volatile char*>(pages);
    for (long i = 0; i < count; ++i) {
      if (i + 1 < count) (void)*static_cast<const volatile char*>(page_of(pages, i + 1));
      store(page_of(pages, i));
    }
  });
}

KIND(first_touch) {
  in_child([] { write_all(private_pages()); });
}

KIND(shared_first_touch) {
  in_child([] { write_all(map(PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS)); });
}

KIND(file_read_then_write) {
  const int fd = filled_memory_file("plain");
  in_child([=] {
    char* pages = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
    read_all(pages);
    write_all(pages);
  });
}

// Twice: the parent's copies are of the file, the child's of what it shares.
KIND(file_copied_again) {
  const int fd = filled_memory_file("plain");
  one_down([=] {
    char* pages = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
    read_all(pages);
    write_all(pages);
    in_child([=] { write_all(pages); });
  });
}

KIND(file_never_read) {
  const int fd = filled_memory_file("plain");
  in_child([=] { write_all(map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd)); });
}

// The first write to each page is to anonymous memory.  A page of a file then replaces it.
KIND(file_over_anonymous) {
  const int fd = filled_memory_file("plain");
  in_child([=] {
    char* pages = private_pages();
    for (long i = 0; i < count; ++i) {
      char* page = page_of(pages, i);
      store(page);
      if (mmap(page, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd,
               static_cast<off_t>(i) * static_cast<off_t>(kPage)) == MAP_FAILED) {
        fail("mmap");
      }
      store(page);
    }
  });
}

KIND(disk_file_never_read) {
  const int fd = disk_file();
  in_child([=] { write_all(map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd)); });
}

// A read fault ends the last write fault, which then counts for its arena whatever was missed.
void end_last_fault() { (void)*static_cast<const volatile char*>(small_pages(kPage)); }

KIND(arena_copied) {
  const int fd = filled_memory_file("cowshed:truth");
  char* pages = map(PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
  in_child([=] {
    read_all(pages);
    write_all(pages);
    end_last_fault();
  });
}

KIND(write_notify) {
  const int fd = disk_file();
  in_child([=] {
    char* pages = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    read_all(pages);
    write_all(pages);
  });
}

// Each page is a mapping of its own, between closed ones.
KIND(many_mappings) {
  const std::size_t size = 2 * bytes();
  void* mapped = mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) fail("mmap");
  auto* pages = static_cast<char*>(mapped);
  for (long i = 0; i < count; ++i) {
    if (mprotect(page_of(pages, 2 * i), kPage, PROT_READ | PROT_WRITE) != 0) fail("mprotect");
    store(page_of(pages, 2 * i));
  }
  in_child([=] {
    for (long i = 0; i < count; ++i) store(page_of(pages, 2 * i));
  });
}

// A file that ends as an arena's image does: its copies are kept by mapping.
KIND(image_never_read) {
  constexpr std::size_t kImage = std::size_t{2} << 20;
  const std::size_t size = (bytes() + kImage - 1) / kImage * kImage;
  const int fd = disk_file();
  if (ftruncate(fd, static_cast<off_t>(size)) != 0) fail("ftruncate");
  in_child([=] {
    auto* at = static_cast<char*>(
        mmap(nullptr, size + kImage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    at += -reinterpret_cast<std::uintptr_t>(at) & (kImage - 1);
    write_all(
        static_cast<char*>(mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0)));
    end_last_fault();
  });
}

// The pages are in the page cache, but not mapped yet.
KIND(shared_file_present) {
  const int fd = filled_memory_file("plain");
  in_child([=] { write_all(map(PROT_READ | PROT_WRITE, MAP_SHARED, fd)); });
}

// Each page by itself, without reading ahead.
KIND(shared_disk_file_never_read) {
  const int fd = disk_file();
  in_child([=] {
    char* pages = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    madvise(pages, bytes(), MADV_RANDOM);
    write_all(pages);
  });
}

KIND(wiped_on_fork) {
  char* pages = written_private_pages();
  if (madvise(pages, bytes(), MADV_WIPEONFORK) != 0) fail("MADV_WIPEONFORK");
  in_child([=] { write_all(pages); });
}

// A fork leaves pages that the child does not get as they are.
KIND(kept_from_child) {
  one_down([] {
    char* pages = private_pages();
    madvise(pages, bytes(), MADV_DONTFORK);
    measured([=] {
      write_all(pages);
      const Sharer sharer;
      write_all(pages);
    });
  });
}

// Below the mapping of the stack, which grows.
KIND(stack_grows) {
  in_child([] {
    char here = 0;
    char* start = &here - 64 * kPage;
    for (long i = 0; i < count; ++i) store(start - static_cast<std::size_t>(i) * kPage);
  });
}

}  // namespace
}  // namespace ground_truth
