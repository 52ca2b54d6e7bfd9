#pragma once

#include <cstdint>
#include <memory>
#include <memory_resource>
#include <optional>
#include <string_view>
#include <utility>

#include <cowshed/share/arena.h>
#include <cowshed/share/immortal_ptr.h>
#include <cowshed/share/registry.h>
#include <cowshed/share/workers.h>
#include <cowshed/tools/search/memory_use.h>
#include <cowshed/tools/search/reference.h>

// Where the objects live: all that differs between the two programs.  A Storage makes objects for
// one owner (Owned) or many (Ref), and can `publish` the index for the workers when all are made.
namespace cowshed::search {

// As most programs do it: malloc and std::shared_ptr.
class HeapStorage {
 public:
  static constexpr std::string_view kName = "heap";
  template <class T>
  using Ref = Reference<std::shared_ptr<T>>;

  struct Disposer {
    template <class T>
    void operator()(T* object) const {
      std::pmr::polymorphic_allocator<>(resource()).delete_object(object);
    }
  };
  template <class T>
  using Owned = Owner<T, Disposer>;

  static Expected<HeapStorage> create() { return HeapStorage(heap_in_use()); }
  static std::pmr::memory_resource* resource() { return std::pmr::new_delete_resource(); }

  template <class T, class... Args>
  Ref<T> make_shared(Args&&... args) const {
    return Ref<T>(std::allocate_shared<T>(std::pmr::polymorphic_allocator<T>(resource()),
                                          std::forward<Args>(args)...));
  }
  template <class T, class... Args>
  Owned<T> make_owned(Args&&... args) const {
    return {
        std::pmr::polymorphic_allocator<>(resource()).new_object<T>(std::forward<Args>(args)...),
        {}};
  }

  // Nothing to do: a reference to the index, which fork() lets the workers inherit.
  template <class T>
  static Expected<std::reference_wrapper<const T>> publish(const Owned<T>& object) {
    return std::cref(*object);
  }
  std::size_t bytes_in_use() const { return heap_in_use() - before_; }
  static std::optional<AddressRange> frozen_range() { return std::nullopt; }
  static std::uint64_t dropped_frees() { return 0; }

 private:
  explicit HeapStorage(std::size_t before) : before_(before) {}

  std::size_t before_;
};

// The frozen arena, and pointers that count nothing.
class ArenaStorage {
 public:
  static constexpr std::string_view kName = "arena";
  template <class T>
  using Ref = Reference<ImmortalPtr<T>>;

  // No destructor: what an arena object owns lies in the arena as well, and is not to be written.
  struct Disposer {
    std::pmr::memory_resource* resource;
    template <class T>
    void operator()(T* object) const {
      resource->deallocate(object, sizeof(T), alignof(T));
    }
  };
  template <class T>
  using Owned = Owner<T, Disposer>;

  static Expected<ArenaStorage> create() {
    return Arena::create({.name = "package index", .capacity = 16_GiB}).map([](Arena&& arena) {
      return ArenaStorage(std::move(arena));
    });
  }
  std::pmr::memory_resource* resource() const { return arena_.resource(); }

  template <class T, class... Args>
  Ref<T> make_shared(Args&&... args) const {
    return Ref<T>(ImmortalPtr<T>(make<T>(std::forward<Args>(args)...)));
  }
  template <class T, class... Args>
  Owned<T> make_owned(Args&&... args) const {
    return {make<T>(std::forward<Args>(args)...), Disposer{resource()}};
  }

  // No object of the arena changes from here.
  template <class T>
  Expected<cowshed::Ref<T>> publish(const Owned<T>& object) {
    return arena_.freeze().and_then([&] { return cowshed::publish("index", object.get()); });
  }
  std::size_t bytes_in_use() const { return arena_.stats().used; }
  std::optional<AddressRange> frozen_range() const {
    const auto begin = reinterpret_cast<std::uintptr_t>(arena_.base());
    return AddressRange{begin, begin + arena_.stats().used};
  }
  std::uint64_t dropped_frees() const { return arena_.stats().dropped_frees; }

 private:
  explicit ArenaStorage(Arena&& arena) : arena_(std::move(arena)) {}

  template <class T, class... Args>
  T* make(Args&&... args) const {
    return std::pmr::polymorphic_allocator<>(resource()).new_object<T>(std::forward<Args>(args)...);
  }

  Arena arena_;
};

}  // namespace cowshed::search
